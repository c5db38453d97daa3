package membership

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	ready, alone                prometheus.Gauge
	epoch, count                *prometheus.GaugeVec
	leaving, silent, duplicates prometheus.Gauge
	lacking, unconfirmed        prometheus.Gauge
	foreign                     prometheus.Gauge
	stateFailures               *prometheus.CounterVec
	questions                   *prometheus.CounterVec
	unwatched                   prometheus.Counter
	forced                      prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &metrics{
		ready: gauge("larder_shard_ready",
			"1 if the shard may answer Queriers, 0 if it waits: /-/ready says for what."),
		alone: gauge("larder_shard_started_alone",
			"1 if the process started without a record of epochs and without a peer, so that "+
				"blocks may be missing from answers until it has reached one, and a Querier wait "+
				"has passed since."),
		epoch: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "larder_shard_epoch",
			Help: "Epochs of the process: configured (last read), next (being taken on, 0 for " +
				"none), current (whose blocks are served).",
		}, []string{"state"}),
		count: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "larder_shard_count",
			Help: "Number of shards in these epochs.",
		}, []string{"state"}),
		leaving: gauge("larder_shard_blocks_leaving",
			"Number of blocks that are served until their new owners have confirmed them."),
		lacking: gauge("larder_shard_members_lacking",
			"Number of members that have not persisted the next epoch, as far as is known."),
		unconfirmed: gauge("larder_shard_members_unconfirmed",
			"Number of new owners that have not confirmed all blocks of this process."),
		silent: gauge("larder_shard_silent_peers",
			"Number of addresses of peers that did not answer the last question."),
		foreign: gauge("larder_shard_foreign_peers",
			"Number of addresses of peers that belong to another cluster: another bucket, or "+
				"another name in the configuration file. Their answers are refused."),
		duplicates: gauge("larder_shard_duplicates",
			"Number of members of which two processes answered lately. A restart does not count."),
		stateFailures: f.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_shard_state_failures_total",
			Help: "Total number of failed reads and writes of the record of epochs.",
		}, []string{"operation"}),
		questions: f.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_shard_questions_total",
			Help: "Total number of questions to peers, by outcome: answered, failed, " +
				"foreign (of another cluster, refused).",
		}, []string{"outcome"}),
		unwatched: f.NewCounter(prometheus.CounterOpts{
			Name: "larder_shard_clients_unwatched_total",
			Help: "Total number of calls of Info by clients beyond the number that hand-overs " +
				"wait for.",
		}),
		forced: f.NewCounter(prometheus.CounterOpts{
			Name: "larder_shard_forced_total",
			Help: "Total number of times that an operator forced an epoch.",
		}),
	}
	for _, operation := range []string{"read", "write"} {
		m.stateFailures.WithLabelValues(operation)
	}
	for _, outcome := range []string{answered, failed, foreign} {
		m.questions.WithLabelValues(outcome)
	}
	return m
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
