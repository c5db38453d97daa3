package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/metadata"

	"larder/store/storepb"
)

const (
	// tenantNames is the number of invented tenants.
	tenantNames = 1000
	// maxTenantSeries is the maximum number of series in /metrics that they may cause.
	maxTenantSeries = 2000
	// unreadScrapes is the number of answers of /metrics that are not read.
	unreadScrapes = 8
	// tenantWorkers is the number of parallel requests.
	tenantWorkers = 8
)

// tenantAttacks are attack 5: metrics that a client invents.
func tenantAttacks() []attack {
	return []attack{{name: "tenants", number: "5", run: runTenants}}
}

func runTenants(ctx context.Context, t *target) (string, error) {
	before, _, err := t.scrape(ctx)
	if err != nil {
		return "", err
	}
	if err := askAsTenants(ctx, t); err != nil {
		return "", err
	}
	after, bytes, err := t.scrape(ctx)
	if err != nil {
		return "", err
	}
	if n := after - before; n > maxTenantSeries {
		t.got("%d tenants made %d metric series, at most %d are allowed", tenantNames, n,
			maxTenantSeries)
	}
	for i := range unreadScrapes {
		c, err := dialer(attacker(i)).DialContext(ctx, "tcp", t.larder.HTTP)
		if err != nil {
			return "", err
		}
		defer c.Close()
		if err := c.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
			return "", err
		}
		if _, err := fmt.Fprintf(c, "GET /metrics HTTP/1.1\r\nHost: %s\r\n\r\n",
			t.larder.HTTP); err != nil {
			return "", err
		}
	}
	pause(ctx, time.Second)
	status, _, _, err := t.get(ctx, honestClient, "/metrics", nil)
	if err != nil || status != http.StatusOK {
		t.got("an honest scrape beside %d that are not read: status %d, %v", unreadScrapes, status,
			err)
	}
	return fmt.Sprintf("%d tenants: %d metric series before, %d after, %.1f MB a scrape; "+
		"honest scrape beside %d unread: %d",
		tenantNames, before, after, float64(bytes)/1e6, unreadScrapes, status), nil
}

// askAsTenants sends every request of the StoreAPI under each name.
func askAsTenants(ctx context.Context, t *target) error {
	conn, err := dial(t.larder.GRPC, attacker(0))
	if err != nil {
		return err
	}
	defer conn.Close()
	work := make(chan int)
	var wg sync.WaitGroup
	for range tenantWorkers {
		wg.Go(func() {
			for n := range work {
				ctx := metadata.AppendToOutgoingContext(ctx, "thanos-tenant",
					fmt.Sprint("tenant-", n))
				// The answer does not matter: the honest client reports whether larder answers.
				_ = askSeries(ctx, conn)
				client := storepb.NewStoreClient(conn)
				_, _ = client.LabelNames(ctx, &storepb.LabelNamesRequest{End: math.MaxInt64})
				_, _ = client.LabelValues(ctx,
					&storepb.LabelValuesRequest{Label: "code", End: math.MaxInt64})
				_, _ = storepb.NewInfoClient(conn).Info(ctx, &storepb.InfoRequest{})
			}
		})
	}
	for n := range tenantNames {
		work <- n
	}
	close(work)
	wg.Wait()
	return ctx.Err()
}

// scrape returns the number of series and bytes of /metrics.
func (t *target) scrape(ctx context.Context) (series, bytes int, err error) {
	status, _, body, err := t.get(ctx, honestClient, "/metrics", nil)
	if err == nil && status != http.StatusOK {
		err = errors.New("/metrics: " + http.StatusText(status))
	}
	for line := range strings.Lines(body) {
		if !strings.HasPrefix(line, "#") && strings.TrimSpace(line) != "" {
			series++
		}
	}
	return series, len(body), err
}
