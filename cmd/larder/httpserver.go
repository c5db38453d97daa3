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

// What a client of HTTP may do that is no flag; what it may send and how long it may take to read
// stands in internal/web.
const (
	// headerTimeout is what a client has for the headers of a request, and for TLS before them.
	headerTimeout = 10 * time.Second
	// maxHTTPHeaderBytes bounds them. net/http adds 4 KiB of its own.
	maxHTTPHeaderBytes = 64 << 10
	// idleTimeout is how long a connection waits for the next request: longer than between two
	// scrapes.
	idleTimeout = 3 * time.Minute
	// maxHTTPStreams are the requests that run at once on a connection of HTTP/2.
	maxHTTPStreams = 100
)

// httpConfig holds the flags of the HTTP servers. What they serve is said by webConfig.
type httpConfig struct {
	address, configFile string
	debugAddress        string // empty: there is no such listener
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

// ownHosts are the names of this machine: its host name, and what the HTTP ports were told to
// listen on.
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

// serveHTTP makes the HTTP servers and takes their ports.
func (g *gateway) serveHTTP(reg *prometheus.Registry, connections *inbound.Metrics) error {
	conf := &g.conf.web
	var allowances []web.Allowance
	for _, f := range g.conf.caches.Memory.Figures() {
		allowances = append(allowances, web.Allowance(f))
	}
	o := web.Options{
		Allowances: allowances,
		Probe:      g.probe, Gatherer: reg,
		Disable: conf.disable, DisableCORS: conf.disableCORS, DebugElsewhere: g.conf.http.debugAddress != "",
		AllowedHosts: conf.allowedHosts, OwnHosts: g.conf.http.ownHosts(),
		ExternalPrefix: conf.externalPrefix, PrefixHeader: conf.prefixHeader, Label: conf.label,
		Blocks: shownBlocks{g.backend.catalog, g.backend.irregular}, Flags: g.conf.shown(),
		Started: time.Now(), Logger: g.logger, Registerer: reg,
	}
	if conf.enableAdmin {
		o.Marker = marker{g.backend.bound}
	}
	if err := g.listenHTTP("http", "http-address", g.conf.http.address, web.Handler(o), connections); err != nil {
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
	g.http = append(
		g.http,
		httpServer{
			name:     name,
			listener: l,
			Server:   newHTTPServer(g.requests.HTTP(handler), g.logger),
		},
	)
	return nil
}

func newHTTPServer(handler http.Handler, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHTTPHeaderBytes,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxHTTPStreams},
		// handshakes that failed, mostly
		ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
}

// serve returns when the server was shut down, or with what keeps it from serving.
func (h *httpServer) serve(configFile string, logger *slog.Logger) error {
	logger = slog.New(webLog{logger.With("server", h.name).Handler(), webFile(configFile)})
	flags := &toolkit.FlagConfig{WebConfigFile: &configFile}
	err := toolkit.Serve(h.listener, h.Server, flags, logger)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
