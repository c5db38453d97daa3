package web

import (
	"net/http"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Probe holds the two answers that an orchestrator asks for. It starts healthy and not ready.
//
// INVARIANT: after Drain it is never ready again, whoever calls SetReady: a process that has begun
// to stop must not be sent new work because its first sync happened to end then.
type Probe struct {
	ready, draining atomic.Bool
	onChange        func(ready bool)
}

// NewProbe returns a probe that exports thanos_status as Thanos does. onChange, if not nil, is
// called after each change of readiness; calls may overlap.
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

// Ready tells whether the process may be sent requests.
func (p *Probe) Ready() bool { return p.ready.Load() && !p.draining.Load() }

// SetReady is called when the first view of the bucket is known. Readiness does not go back except
// by Drain.
func (p *Probe) SetReady() {
	if p.ready.CompareAndSwap(false, true) && p.onChange != nil {
		p.onChange(p.Ready())
	}
}

// Draining tells whether the process has begun to stop.
func (p *Probe) Draining() bool { return p.draining.Load() }

// Drain makes the process not ready for good. It reports whether it was ready until now.
func (p *Probe) Drain() bool {
	was := p.Ready()
	if p.draining.CompareAndSwap(false, true) && p.onChange != nil {
		p.onChange(false)
	}
	return was
}

func (p *Probe) serveReady(w http.ResponseWriter, _ *http.Request) { answer(w, p.Ready()) }

func (p *Probe) serveHealthy(w http.ResponseWriter, _ *http.Request) { answer(w, true) }

func answer(w http.ResponseWriter, ok bool) {
	if !ok {
		http.Error(w, "NOT OK", http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte("OK")) // a client that went away is no fault of ours
}
