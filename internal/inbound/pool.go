package inbound

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"larder/internal/panics"
)

// Pool bounds streams whose clients decide how long they last: those of Health and reflection. They
// do not count against the bounds of the StoreAPI. The zero value is ready to use.
type Pool struct {
	// Max is the maximum number of streams; default 256. A stream beyond it replaces the newest
	// stream of the client with most streams, or is rejected if its own client has most.
	Max int
	// Lifetime is the age at which a stream ends with Unavailable; default 1 hour. Clients then
	// start a new one.
	Lifetime time.Duration

	mu      sync.Mutex // guards what follows
	open    int
	clients map[netip.Prefix][]*pooled // oldest first
}

const (
	defaultPool     = 256
	defaultLifetime = time.Hour
)

// pooled is an open stream.
type pooled struct {
	client netip.Prefix
	end    context.CancelCauseFunc
}

var (
	errLifetime = status.Error(codes.Unavailable,
		"the stream has reached its maximum age: start a new one")
	errOutgrown = status.Error(codes.ResourceExhausted,
		"too many streams of Health and reflection, and this client has most of them: "+
			"close some")
)

// Around runs the handler of a stream. If the stream is ended, Around returns before the handler.
// Sending and receiving then fail, so that the handler returns soon after.
func (p *Pool) Around(ctx context.Context, handler func(context.Context) error) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	s := &pooled{client: ClientOf(ctx).Network, end: end}
	if !p.enter(s) {
		return errOutgrown
	}
	defer p.leave(s)
	lifetime := time.AfterFunc(cmp.Or(p.Lifetime, defaultLifetime), func() { end(errLifetime) })
	defer lifetime.Stop()

	done := make(chan error, 1)
	run := panics.Contained(func() error { return handler(ctx) })
	go func() { done <- run() }()
	select {
	case err := <-done:
		var p *panics.Error
		if errors.As(err, &p) {
			panic(p) // for the interceptor that counts panics
		}
		return err
	case <-ctx.Done():
		if cause := context.Cause(ctx); errors.Is(cause, errLifetime) ||
			errors.Is(cause, errOutgrown) {
			return cause
		}
		return status.FromContextError(ctx.Err()).Err()
	}
}

// enter admits a stream. If the pool is full, it ends a stream of the client with most streams.
func (p *Pool) enter(s *pooled) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.clients == nil {
		p.clients = map[netip.Prefix][]*pooled{}
	}
	if p.open >= cmp.Or(p.Max, defaultPool) {
		loser := p.clients[s.client]
		for _, streams := range p.clients {
			if len(streams) > len(loser)+1 {
				loser = streams
			}
		}
		if len(loser) == 0 || loser[0].client == s.client {
			return false
		}
		newest := loser[len(loser)-1]
		p.remove(newest)
		newest.end(errOutgrown)
	}
	p.clients[s.client] = append(p.clients[s.client], s)
	p.open++
	return true
}

func (p *Pool) leave(s *pooled) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.remove(s)
}

// remove removes a stream, unless it was removed before. Call it with mu held.
func (p *Pool) remove(s *pooled) {
	streams := p.clients[s.client]
	for i, o := range streams {
		if o == s {
			p.open--
			if streams = slices.Delete(streams, i, i+1); len(streams) == 0 {
				delete(p.clients, s.client)
			} else {
				p.clients[s.client] = streams
			}
			return
		}
	}
}
