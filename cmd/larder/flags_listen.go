package main

import "larder/internal/inbound"

func (c *storeConfig) listenFlags(f flagger) {
	flag(
		f, "http-address", "Listen host:port for HTTP: probes, metrics, profiles, pages, /api/v1/.",
		"0.0.0.0:10902", &c.http.address, text,
	)
	flag(
		f,
		"web.debug-address",
		"Listen host:port for /debug/ and POST /api/v1/blocks/mark, which --http-address then does not have; under the same --http.config. "+
			"Empty: they are served on --http-address.",
		"",
		&c.http.debugAddress,
		text,
	).PlaceHolder("<host:port>")
	flag(
		f, "http-grace-period", "Time that HTTP requests get to finish after a stop signal.", "2m",
		&c.http.grace, promDuration,
	)
	flag(
		f, "http.config",
		"Path to a file that enables TLS or authentication for HTTP (Prometheus's web configuration).",
		"", &c.http.configFile, text,
	).PlaceHolder("<file-path>")

	flag(
		f, "grpc-address", "Listen host:port for gRPC: StoreAPI and Info.", "0.0.0.0:10901",
		&c.grpc.address, text,
	)
	flag(
		f, "grpc-grace-period",
		"Time that running gRPC requests get to finish after a stop signal.", "2m", &c.grpc.grace,
		goDuration,
	)
	flag(
		f, "grpc-server-max-connection-age",
		"Age at which a client is asked to connect anew. 0 = never.", "60m",
		&c.grpc.maxConnectionAge, goDuration,
	)
	flag(
		f, "grpc-max-connections",
		"Connections to the gRPC port; more are closed at once. 0 = no limit.", "1024",
		&c.grpc.maxConnections, integer(0),
	)
	flag(
		f, "grpc-max-connections-per-client",
		"Those of them from one address (IPv6: one /64), such as that of a proxy. 0 = no limit.",
		"256", &c.grpc.maxPerClient, integer(0),
	)
	flag(f, "grpc-max-requests-per-client",
		"Maximum number of open gRPC requests of one client address. A client that opens more "+
			"loses the connection that has most of them. 0 = no limit.",
		"2048", &c.grpc.maxRequestsPerClient, integer(0))
	listFlag(
		f,
		"grpc-client-shares",
		"Number of clients that an address or a network counts as, such as 10.0.0.7=8 for a proxy. "+
			"Its connections, open requests and received bytes may be so many times those of a client. "+
			"May be repeated.",
		&c.grpc.shares,
		inbound.ParseShare,
	)
	boolFlag(f, "grpc-reflection",
		"Serve gRPC's reflection, which lists the services and messages of the port.",
		"true", &c.grpc.reflection)
	flag(
		f, "grpc-max-concurrent-streams",
		"Requests that run at once on a gRPC connection; a client makes more of them wait. 0 = no limit.",
		"1000", &c.grpc.maxStreams, integer(0),
	)
	flag(
		f, "grpc-server-tls-cert", "Certificate file of the gRPC server. Empty = no TLS.", "",
		&c.grpc.tls.certFile, text,
	).PlaceHolder("<file-path>")
	flag(
		f, "grpc-server-tls-key", "Key file of the gRPC server. Empty = no TLS.", "",
		&c.grpc.tls.keyFile, text,
	).PlaceHolder("<file-path>")
	flag(
		f, "grpc-server-tls-client-ca",
		"CA file to verify clients against: with it, a client without a certificate is refused.",
		"", &c.grpc.tls.clientCAFile, text,
	).PlaceHolder("<file-path>")
	flag(
		f, "grpc-server-tls-min-version",
		"Lowest TLS version of the gRPC server: 1.0, 1.1, 1.2 or 1.3.", "1.3",
		&c.grpc.tls.minVersion, oneOf("1.0", "1.1", "1.2", "1.3"),
	)
	listFlag(
		f,
		"grpc-server-tls-ciphers",
		"A cipher suite of the gRPC server's TLS up to 1.2, by its name in Go's crypto/tls. May be repeated; default: Go's choice. "+
			"Those of TLS 1.3 cannot be chosen.",
		&c.grpc.tls.ciphers,
		cipherSuite,
	).PlaceHolder("NAME")
	listFlag(
		f,
		"grpc-server-tls-curves",
		"A curve (key exchange) of the gRPC server's TLS: CurveP256, CurveP384, CurveP521, X25519, X25519MLKEM768, "+
			"SecP256r1MLKEM768 or SecP384r1MLKEM1024. May be repeated; default: Go's choice.",
		&c.grpc.tls.curves,
		curve,
	).PlaceHolder("NAME")

	contentFlags(
		f, &c.requestLogYAML, "request.logging-config",
		"says which gRPC and HTTP requests are logged, as Thanos has it.",
	)
	flag(
		f, "drain-delay",
		"Time to go on serving after SIGTERM while already not ready, so that queriers notice before connections close.",
		"5s", &c.drainDelay, goDuration,
	)
}
