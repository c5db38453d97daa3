package main

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	toolkit "github.com/prometheus/exporter-toolkit/web"

	"larder/internal/inbound"
	"larder/internal/web"
)

// Bounds of HTTP clients that are not flags. internal/web bounds bodies and the time to read
// answers.
const (
	// headerTimeout bounds TLS and the headers of a request.
	headerTimeout = 10 * time.Second
	// maxHTTPHeaderBytes bounds the headers. net/http adds 4 KiB to it.
	maxHTTPHeaderBytes = 64 << 10
	// idleTimeout is the time after which an idle connection is closed. It is longer than the usual
	// interval between two scrapes.
	idleTimeout = 3 * time.Minute
	// maxHTTPStreams bounds the concurrent requests of an HTTP/2 connection.
	maxHTTPStreams = 100
)

// httpConfig has the flags of the HTTP servers. webConfig has those of pages and API.
type httpConfig struct {
	address, configFile string
	debugAddress        string // empty: no separate listener
	grace               time.Duration

	fixed webFixed // set by load
}

func (c *httpConfig) flags(f flagger) {
	flag(f, "http-address", "0.0.0.0:10902", &c.address, text,
		"Listen host:port for HTTP: probes, metrics, profiles, web pages, /api/v1/.")
	flag(f, "web.debug-address", "", &c.debugAddress, text,
		"Separate listen host:port for /debug/ and POST /api/v1/blocks/mark, "+
			"which --http-address then does not serve. --http.config applies to both. "+
			"Empty = serve them on --http-address.").PlaceHolder("<host:port>")
	flag(f, "http-grace-period", "2m", &c.grace, promDuration,
		"Time for running HTTP requests to finish after a stop signal. 0 = cancel them at once.")
	flag(f, "http.config", "", &c.configFile, text,
		"Path to a file that enables TLS or authentication for HTTP, "+
			"in the format of Prometheus's web configuration.").PlaceHolder("<file-path>")
}

func (c *httpConfig) load(now time.Time) (err error) {
	c.fixed, err = webFile(c.configFile).check(now)
	return err
}

// ownHosts returns the names of this machine: its host name, and the hosts of the HTTP addresses.
func (c *httpConfig) ownHosts() []string {
	var names []string
	add := func(name string) {
		if name, err := web.ParseHost(name); err == nil && !strings.HasPrefix(name, "*") {
			names = append(names, name)
		}
	}
	if name, err := os.Hostname(); err == nil {
		add(name)
	}
	for _, address := range []string{c.address, c.debugAddress} {
		if name, _, err := net.SplitHostPort(address); err == nil {
			add(name)
		}
	}
	return names
}

// httpServer is an HTTP server with its listener.
type httpServer struct {
	*http.Server
	listener net.Listener
	name     string // in the log and in metrics
}

// serveHTTP creates the HTTP servers and opens their ports.
func (g *gateway) serveHTTP(reg *prometheus.Registry, connections *inbound.Metrics) error {
	conf := &g.conf.web
	g.history = web.NewHistory(reg)
	var allowances []web.Allowance
	for _, f := range g.conf.caches.Memory.Figures() {
		allowances = append(allowances, web.Allowance(f))
	}
	o := web.Options{
		Allowances: allowances,
		Probe:      g.probe, Gatherer: reg,
		Disable: conf.disable, DisableCORS: conf.disableCORS,
		DebugElsewhere: g.conf.http.debugAddress != "",
		AllowedHosts:   conf.allowedHosts, OwnHosts: g.conf.http.ownHosts(),
		ExternalPrefix: conf.externalPrefix, PrefixHeader: conf.prefixHeader, Label: conf.label,
		Blocks: shownBlocks{g.backend.catalog, g.backend.irregular}, Flags: g.conf.shown(),
		Started: time.Now(), Logger: g.logger, Registerer: reg,
		Explainer: explainer{g.backend.server}, Activity: g.backend.activity,
		Serving: g.backend.serving, History: g.history,
	}
	if o.Shard = g.serveShard(); o.Shard != nil {
		o.ShardStatus = g.backend.shownShard
	}
	if conf.enableAdmin {
		o.Marker = marker{g.backend.bound}
	}
	address := g.conf.http.address
	err := g.listenHTTP("http", "http-address", address, web.Handler(o), connections)
	if err != nil {
		return err
	}
	if !o.DebugElsewhere {
		return nil
	}
	return g.listenHTTP(
		"debug", "web.debug-address", g.conf.http.debugAddress, web.DebugHandler(o), connections,
	)
}

func (g *gateway) listenHTTP(
	name, flag, address string, handler http.Handler, connections *inbound.Metrics,
) error {
	l, err := listen(
		flag, address, inbound.Options{Server: name, Logger: g.logger, Metrics: connections},
	)
	if err != nil {
		return err
	}
	g.onClose(func() { g.closed("HTTP listener", l.Close()) })
	server := newHTTPServer(g.requests.HTTP(handler), g.logger)
	g.http = append(g.http, httpServer{name: name, listener: l, Server: server})
	return nil
}

func newHTTPServer(handler http.Handler, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHTTPHeaderBytes,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxHTTPStreams},
		// mostly failed handshakes
		ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
}

// serve returns nil after a shutdown, or the error that ended serving.
func (h *httpServer) serve(configFile string, logger *slog.Logger) error {
	logger = slog.New(webLog{logger.With("server", h.name).Handler(), webFile(configFile)})
	flags := &toolkit.FlagConfig{WebConfigFile: &configFile}
	err := toolkit.Serve(h.listener, h.Server, flags, logger)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
