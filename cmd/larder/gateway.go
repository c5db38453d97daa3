package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/oklog/run"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/version"
	"google.golang.org/grpc/encoding/gzip"

	"larder/internal/config"
	"larder/internal/datadir"
	"larder/internal/inbound"
	"larder/internal/intake"
	"larder/internal/redaction"
	"larder/internal/reload"
	"larder/internal/requestlog"
	"larder/internal/telemetry"
	"larder/internal/web"
	"larder/store/storepb"
)

// gateway is the running `larder store`: newGateway, run, close.
type gateway struct {
	conf     *storeConfig
	logger   *slog.Logger
	tracing  *telemetry.Tracing
	probe    *web.Probe
	backend  *backend
	rpc      *rpcServer
	requests *requestlog.Log
	reload   *reload.Reloader
	http     []httpServer // the main server, and that of --web.debug-address if set
	metrics  prometheus.Gatherer
	history  *web.History

	rpcListener net.Listener

	undo []func() // run last to first
}

// newGateway checks flags, files, the data directory and the bucket's client, and opens the ports
// last. After an error, nothing stays open. It logs nothing before it succeeds, so that the error
// is the only line.
func newGateway(conf *storeConfig, stderr io.Writer) (*gateway, error) {
	if err := conf.load(time.Now()); err != nil {
		return nil, err
	}
	logger, err := telemetry.NewLogger(stderr, conf.process.logLevel, conf.process.logFormat)
	if err != nil {
		// Level and format are valid. The destination of the log is not usable.
		return nil, fmt.Errorf("--log.format: %w", err)
	}
	if conf.process.debugName != "" {
		logger = logger.With("name", conf.process.debugName)
	}
	g := &gateway{conf: conf, logger: logger}
	if err := g.open(); err != nil {
		g.close()
		return nil, err
	}
	return g, nil
}

func (g *gateway) open() (err error) {
	conf := g.conf
	limit, limitErr := config.MemoryLimit(conf.process.autoMemLimit, conf.process.autoMemLimitRatio)
	if l := conf.hooks.memoryLimit; l > 0 {
		limit = l
	}
	scaled, err := conf.caches.Memory.Fit(limit)
	if err != nil {
		return err
	}
	telemetry.LogSDK(g.logger)
	g.tracing, err = telemetry.NewTracing(context.Background(), conf.process.tracing)
	if err != nil {
		return conf.process.tracingYAML.wrap(err)
	}
	g.onClose(g.flushSpans)

	reg := telemetry.NewRegistry()
	g.metrics = reg
	g.tracing.Register(reg)
	var dir *datadir.Dir // nil: larder keeps nothing on disk
	if conf.dataDir.cacheIndexHeader {
		if dir, err = openDataDir(conf.dataDir.path, reg); err != nil {
			return err
		}
		g.onClose(func() { g.closed("data directory", dir.Close()) })
	}
	if g.backend, err = openBackend(conf, dir, g.logger, reg, g.tracing); err != nil {
		return err
	}
	g.onClose(g.backend.close)
	if err = g.serve(reg); err != nil {
		return err
	}
	g.reload = reload.New(g.reloadable(), reload.Options{Logger: g.logger, Registerer: reg})

	g.logger.Info("starting larder", "version", version.Info(), "build", version.BuildContext())
	if limitErr != nil {
		g.logger.Warn("memory limit of the container is unknown", "err", limitErr)
	}
	g.backend.warnOfBudgets(conf.budgets.parsed)
	conf.caches.Memory.Log(g.logger, limit, scaled)
	conf.caches.Memory.WarnAboveMachine(g.logger, limit, config.MachineMemory())
	for _, n := range conf.caches.Notes {
		n.Log(g.logger)
	}
	if dir != nil {
		dir.Report(g.logger)
	}
	for _, r := range g.tracing.Replaced {
		g.logger.Warn(
			"tracing setting cannot be used", "flag", conf.process.tracingYAML.flag(), "key", r.Key,
			"value", r.Value, "want", r.Want, "used", r.Used,
		)
	}
	return nil
}

// serve creates the servers and opens the ports.
func (g *gateway) serve(reg *prometheus.Registry) (err error) {
	g.probe = web.NewProbe(reg, func(ready bool) {
		g.rpc.setReady(ready)
		g.logger.Info("readiness changed", "ready", ready)
	})
	s := g.backend.services()
	intake.BoundDecompression(s.messages, gzip.Name, storepb.SnappyName)
	s.info = infoWhenReady{s.info, g.probe.Ready}
	logs := g.conf.requestLog.options(g.logger)
	logs.Undescribed = rejected(g.backend.activity)
	g.requests = requestlog.New(g.conf.requestLog.parsed, logs)
	if g.rpc, err = newRPCServer(g.conf.grpc, s, g.requests, logs, reg, g.tracing); err != nil {
		return err
	}
	connections := inbound.NewMetrics(reg)
	if g.rpcListener, err = listen("grpc-address", g.conf.grpc.address, inbound.Options{
		Max:          orNone(g.conf.grpc.maxConnections),
		MaxPerClient: orNone(g.conf.grpc.maxPerClient),
		WriteTimeout: orNone(g.conf.requests.sendStall),
		Shares:       g.conf.grpc.shares, Requests: g.rpc.open,
		Server: "grpc", Logger: g.logger, Metrics: connections,
	}); err != nil {
		return err
	}
	g.onClose(func() { g.closed("gRPC listener", g.rpcListener.Close()) })
	return g.serveHTTP(reg, connections)
}

func listen(flag, address string, opts inbound.Options) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		if !redaction.Path(address) {
			err = redaction.Hide(err, address)
			address = redaction.Mark
		}
		return nil, fmt.Errorf("--%s %s: %w", flag, address, err)
	}
	return inbound.New(l, opts), nil
}

// run serves until ctx ends or an essential part fails. Then it stops: it accepts no new requests,
// running ones finish within the grace period, and the rest is stopped after them. Call it once.
func (g *gateway) run(ctx context.Context) error {
	// INVARIANT: actors are stopped in the order in which they were added, one after the other.
	var actors run.Group

	stopped, stop := context.WithCancel(ctx)
	actors.Add(func() error {
		<-stopped.Done()
		return nil
	}, func(error) {
		g.probe.Drain()
		stop()
	})

	actors.Add(func() error {
		g.logger.Info("serving gRPC", "address", g.rpcListener.Addr().String())
		return g.rpc.Serve(g.rpcListener)
	}, func(error) {
		g.rpc.stop(g.conf.grpc.grace, g.logger)
	})

	for _, h := range g.http {
		actors.Add(func() error { return h.serve(g.conf.http.configFile, g.logger) }, func(error) {
			ctx, cancel := context.WithTimeout(context.Background(), g.conf.http.grace)
			defer cancel()
			if h.Shutdown(ctx) != nil {
				g.closed("HTTP server", h.Close())
			}
		})
	}

	work, stopWork := context.WithCancel(context.Background())
	actors.Add(func() error {
		g.reload.Run(work)
		return nil
	}, func(error) { stopWork() })
	actors.Add(func() error {
		g.history.Run(work)
		return nil
	}, func(error) { stopWork() })
	actors.Add(
		func() error { return g.backend.run(work, g.probe.SetReady) }, func(error) { stopWork() },
	)

	return actors.Run()
}

func (g *gateway) onClose(f func()) { g.undo = append(g.undo, f) }

// close releases what newGateway opened. Do not call it while run is running.
func (g *gateway) close() {
	for _, f := range slices.Backward(g.undo) {
		f()
	}
	g.undo = nil
}

// closed logs an error of closing. Listeners were closed by their servers before, which is not
// logged.
func (g *gateway) closed(what string, err error) {
	if err != nil && !errors.Is(err, net.ErrClosed) {
		g.logger.Warn("closing failed", "what", what, "err", err)
	}
}

func (g *gateway) flushSpans() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	g.closed("tracing", g.tracing.Shutdown(ctx))
}
