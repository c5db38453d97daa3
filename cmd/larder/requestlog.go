package main

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"larder/internal/activity"
	"larder/internal/requestlog"
	"larder/store/admission"
	"larder/store/storepb"
)

// requestLogConfig has the flags of the request log.
type requestLogConfig struct {
	yaml content
	slow time.Duration // 0: only requests over their budget

	parsed *requestlog.Config // set by load
}

func (c *requestLogConfig) flags(f flagger) {
	contentFlags(f, &c.yaml, "request.logging-config",
		"the request logging configuration in Thanos's format: "+
			"which gRPC and HTTP requests are logged.")
	flag(f, "store.log-requests-longer-than", "10s", &c.slow, goDuration,
		"Log a request for data as slow if it takes at least this time. The line says who sent "+
			"it, what it asked for and where its time went. "+
			"0 = only requests that exceed --latency-budgets.")
}

// options returns the options of all loggers of requests.
func (c *requestLogConfig) options(logger *slog.Logger) requestlog.Options {
	return requestlog.Options{
		Logger: logger, Tenant: admission.TenantOf, Slow: c.slow,
		Polled: []string{storepb.Info_Info_FullMethodName},
	}
}

// rejected returns a function that adds requests for data to log which never began.
func rejected(
	log *activity.Log,
) func(ctx context.Context, method string, d time.Duration, err error) {
	return func(ctx context.Context, method string, d time.Duration, err error) {
		call, ok := strings.CutPrefix(method, "/"+storepb.Store_ServiceDesc.ServiceName+"/")
		if !ok {
			return
		}
		const most = 1 << 10
		s := status.Convert(err)
		text := s.Message()
		text = strings.ToValidUTF8(text[:min(len(text), most)], "\uFFFD")
		e := activity.Ended{
			Request: activity.Request{
				Method: call, Tenant: admission.TenantName(admission.TenantOf(ctx)),
				Start: time.Now().Add(-d),
			},
			Duration: d, Code: s.Code().String(), Err: text,
		}
		if p, ok := peer.FromContext(ctx); ok {
			e.Peer = p.Addr.String()
		}
		log.Reject(e)
	}
}

func (c *requestLogConfig) load() error {
	b, err := c.yaml.read()
	if err != nil {
		return err
	}
	c.parsed, err = requestlog.Parse(b)
	return c.yaml.wrap(err)
}
