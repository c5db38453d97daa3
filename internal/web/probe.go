package web

import (
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Probe holds the state of the readiness and the health probe. It starts healthy and not ready.
//
// INVARIANT: after Drain it is never ready again, even if SetReady is called later, because a
// process that is stopping must not receive new requests.
type Probe struct {
	ready, draining atomic.Bool
	held            atomic.Pointer[string] // why the process is not ready; nil: nothing holds it
	mu              sync.Mutex             // held during a change and its call of onChange
	onChange        func(ready bool)
}

// NewProbe returns a probe that exports thanos_status, same as Thanos. onChange, if not nil, is
// called after each change of readiness, one call at a time.
func NewProbe(reg prometheus.Registerer, onChange func(ready bool)) *Probe {
	p := &Probe{onChange: onChange}
	if reg != nil {
		status := func(check string, value func() float64) prometheus.Collector {
			return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name:        "thanos_status",
				Help:        "Represents status (0 indicates failure, 1 indicates success) of the component.",
				ConstLabels: prometheus.Labels{"component": "store", "check": check},
			}, value)
		}
		reg.MustRegister(
			status("healthy", func() float64 { return 1 }),
			status("ready", func() float64 {
				if p.Ready() {
					return 1
				}
				return 0
			}),
		)
	}
	return p
}

// Ready reports whether the process accepts requests.
func (p *Probe) Ready() bool {
	return p.ready.Load() && !p.draining.Load() && p.held.Load() == nil
}

// Hold makes the process not ready for a reason, until it is called with "".
func (p *Probe) Hold(reason string) {
	p.change(func() {
		if reason == "" {
			p.held.Store(nil)
		} else {
			p.held.Store(&reason)
		}
	})
}

// change changes the state and tells if readiness has changed.
func (p *Probe) change(f func()) (was bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	was = p.Ready()
	f()
	if now := p.Ready(); now != was && p.onChange != nil {
		p.onChange(now)
	}
	return was
}

// SetReady makes the process ready, unless Drain was called. Call it when the first view of the
// bucket is known.
func (p *Probe) SetReady() {
	p.change(func() { p.ready.Store(true) })
}

// Draining reports whether the process is stopping.
func (p *Probe) Draining() bool { return p.draining.Load() }

// Drain makes the process permanently not ready. It reports whether it was ready before.
func (p *Probe) Drain() bool {
	return p.change(func() { p.draining.Store(true) })
}

func (p *Probe) serveReady(w http.ResponseWriter, _ *http.Request) {
	why := ""
	if held := p.held.Load(); held != nil {
		why = ": " + *held
	}
	answer(w, p.Ready(), why)
}

func (p *Probe) serveHealthy(w http.ResponseWriter, _ *http.Request) { answer(w, true, "") }

func answer(w http.ResponseWriter, ok bool, why string) {
	if !ok {
		http.Error(w, "NOT OK"+why, http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte("OK")) // fails only if the client has disconnected
}
