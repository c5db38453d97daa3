package neighbour

import (
	"context"
	"errors"
	"fmt"
	"time"

	"larder/interop/internal/process"
)

// Component is a running component of Thanos with its addresses. It embeds a client of its HTTP
// address, which answers PromQL if the component does.
type Component struct {
	*process.Process
	*Client
	// Addr is the gRPC address; empty if the component has none.
	Addr     string
	HTTPAddr string
}

// Options select the component. Bin and Name are required.
type Options struct {
	// Bin is the thanos binary, see programs.Thanos.
	Bin string
	// Name is the subcommand: query, store, sidecar, rule, receive, compact.
	Name string
	Args []string
	// NoGRPC is for components without a --grpc-address (compact).
	NoGRPC bool
	// Env is added to the environment, as NAME=value.
	Env []string
	// HTTPAddr is the address to listen on; default: a free loopback port. GRPCAddr likewise.
	HTTPAddr, GRPCAddr string
}

// Start runs a component and waits until it is ready.
func Start(ctx context.Context, o Options) (*Component, error) {
	addrs, err := process.FreePorts(2)
	if err != nil {
		return nil, err
	}
	c := &Component{HTTPAddr: addrs[0]}
	if o.HTTPAddr != "" {
		c.HTTPAddr = o.HTTPAddr
	}
	ready := process.HTTP("http://" + c.HTTPAddr + "/-/ready")
	args := []string{
		o.Name,
		"--http-address=" + c.HTTPAddr,
		"--http-grace-period=1s",
		"--log.level=warn",
	}
	if !o.NoGRPC {
		c.Addr = addrs[1]
		if o.GRPCAddr != "" {
			c.Addr = o.GRPCAddr
		}
		// During a grace period a server waits for connections that clients keep open. That would
		// use the whole period needlessly. Some components report ready a moment before they
		// listen.
		overHTTP, overGRPC := ready, process.Listening(c.Addr)
		ready = func(ctx context.Context) bool { return overHTTP(ctx) && overGRPC(ctx) }
		args = append(args, "--grpc-address="+c.Addr, "--grpc-grace-period=1s")
	}
	c.Process, err = process.Start(ctx, process.Options{
		Name: "thanos " + o.Name, Bin: o.Bin, Args: append(args, o.Args...), Env: o.Env,
		Ready: ready,
	})
	if err != nil {
		return nil, err
	}
	c.Client = NewClient("http://" + c.HTTPAddr)
	return c, nil
}

// Bucket is what StartStore serves. It is gateway.Bucket, which this package does not import,
// because that package links all of Thanos.
type Bucket interface {
	// Flags returns the arguments of `thanos store` that name the bucket and the folder for the
	// store's own files.
	Flags() ([]string, error)
}

// StartStore runs `thanos store` over the bucket. It is ready once it has loaded the bucket's
// blocks.
func StartStore(ctx context.Context, bin string, b Bucket, extra ...string) (*Component, error) {
	flags, err := b.Flags()
	if err != nil {
		return nil, err
	}
	return Start(ctx, Options{Bin: bin, Name: "store", Args: append(flags, extra...)})
}

// StartQuerier runs `thanos query` over StoreAPIs at these addresses and waits until it knows all
// of them. It does not wait for endpoints in extra; WaitStores does.
func StartQuerier(
	ctx context.Context, bin string, endpoints []string, extra ...string,
) (*Component, error) {
	var args []string
	for _, e := range endpoints {
		args = append(args, "--endpoint="+e)
	}
	q, err := Start(ctx, Options{Bin: bin, Name: "query", Args: append(args, extra...)})
	if err != nil {
		return nil, err
	}
	if err := q.WaitStores(ctx, func(all []Store) bool {
		return healthy(all) >= len(endpoints)
	}); err != nil {
		return nil, errors.Join(err, q.Close())
	}
	return q, nil
}

func healthy(all []Store) int {
	n := 0
	for _, s := range all {
		if s.LastError == "" {
			n++
		}
	}
	return n
}

// WaitStores waits until cond holds for the stores that a Querier knows. The Querier requests the
// Info of each every 5 seconds.
func (c *Component) WaitStores(ctx context.Context, cond func([]Store) bool) error {
	var last []Store
	var lastErr error
	err := c.Wait(ctx, func(ctx context.Context) bool {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		last, lastErr = c.Stores(ctx)
		return lastErr == nil && cond(last)
	})
	if err != nil {
		return fmt.Errorf(
			"the Querier's stores are not as awaited: %w\nstores: %+v, error %v", err, last,
			lastErr,
		)
	}
	return nil
}
