package store

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"larder/internal/budget"
)

// metrics are the metrics of a Server. Names under thanos_ are those that the dashboards and alerts
// of Thanos read, with the same labels and buckets. Names under larder_ are larder's own. Most
// metrics are updated once, at the end of a request.
type metrics struct {
	blocksLoaded    prometheus.Gauge
	pending         prometheus.Gauge
	blocksQueried   *prometheus.HistogramVec
	dataFetched     *prometheus.HistogramVec
	dataTouched     *prometheus.HistogramVec
	dataSizeFetched *prometheus.HistogramVec
	dataSizeTouched *prometheus.HistogramVec
	postingsSize    *prometheus.HistogramVec
	resultSeries    *prometheus.HistogramVec
	getAllSeconds   *prometheus.HistogramVec
	mergeSeconds    *prometheus.HistogramVec
	sentChunkSize   *sizeHistogram
	emptyPostings   *prometheus.CounterVec
	seriesRefetches *prometheus.CounterVec
	chunkRefetches  *prometheus.CounterVec
	lazyBlocks      prometheus.Counter
	lazyGroups      prometheus.Counter
	seriesRequested prometheus.Histogram
	chunksRequested prometheus.Histogram
	fetches         fetchMetrics
	tenants         tenantMetrics

	stageSeconds     *prometheus.HistogramVec
	overruns         *prometheus.CounterVec
	firstFrame       prometheus.Histogram
	bytesSent        prometheus.Counter
	requeued         *prometheus.CounterVec
	corruptRecords   prometheus.Counter
	unknownEncodings *prometheus.CounterVec
}

// factory creates metrics. Its histograms have native and classic buckets. It registers metrics by
// tenant with names.
type factory struct {
	promauto.Factory
	names *tenantNames
}

func (f factory) histogramOpts(name, help string, buckets []float64) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Name: name, Help: help, Buckets: buckets,
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  256,
		NativeHistogramMinResetDuration: time.Hour,
	}
}

func (f factory) histogram(name, help string, buckets ...float64) prometheus.Histogram {
	return f.NewHistogram(f.histogramOpts(name, help, buckets))
}

func (f factory) histograms(
	name, help string, buckets []float64, labels ...string,
) *prometheus.HistogramVec {
	v := f.NewHistogramVec(f.histogramOpts(name, help, buckets), labels)
	f.owned(v, labels)
	return v
}

func (f factory) counter(name, help string) prometheus.Counter {
	return f.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}

func (f factory) counters(name, help string, labels ...string) *prometheus.CounterVec {
	v := f.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	f.owned(v, labels)
	return v
}

// owned makes names delete the series of a tenant that loses its name.
func (f factory) owned(metric tenantSeries, labels []string) {
	if f.names != nil && slices.Contains(labels, "tenant") {
		f.names.own(metric)
	}
}

func (f factory) gauge(name, help string) prometheus.Gauge {
	return f.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
}

// secondsBuckets are the buckets of Thanos for durations of requests.
var secondsBuckets = []float64{0.001, 0.01, 0.1, 0.3, 0.6, 1, 3, 6, 9, 20, 30, 60, 90, 120}

// newMetrics registers the metrics. names and budgets may be nil.
func newMetrics(
	reg prometheus.Registerer, names *tenantNames, budgets *budget.Current,
) *metrics {
	f := factory{promauto.With(reg), names}
	items := prometheus.ExponentialBuckets(200, 2, 15)
	sizes := prometheus.ExponentialBuckets(1024, 2, 15)
	lists := []float64{
		32, 256, 512, 1 << 10, 32 << 10, 256 << 10, 512 << 10, 1 << 20, 32 << 20, 128 << 20,
		256 << 20, 512 << 20, 768 << 20, 1 << 30,
	}
	m := &metrics{
		blocksLoaded: f.gauge("thanos_bucket_store_blocks_loaded", "Blocks in the current view."),
		pending: f.gauge("thanos_store_server_pending_series_requests",
			"Series requests that are running or waiting."),
		blocksQueried: f.histograms("thanos_bucket_store_series_blocks_queried",
			"Blocks that a Series request queried.", prometheus.ExponentialBuckets(1, 2, 10),
			"tenant"),
		dataFetched: f.histograms("thanos_bucket_store_series_data_fetched",
			"Pages that a Series request fetched from the bucket, by type of data.", items,
			"data_type", "tenant"),
		dataTouched: f.histograms("thanos_bucket_store_series_data_touched",
			"Posting lists, series entries or chunk records that a Series request used.", items,
			"data_type", "tenant"),
		dataSizeFetched: f.histograms("thanos_bucket_store_series_data_size_fetched_bytes",
			"Bytes that a Series request fetched from the bucket, by type of data.", sizes,
			"data_type", "tenant"),
		dataSizeTouched: f.histograms("thanos_bucket_store_series_data_size_touched_bytes",
			"Bytes of pages that a Series request used, by type of data.", sizes, "data_type",
			"tenant"),
		postingsSize: f.histograms("thanos_bucket_store_postings_size_bytes",
			"Bytes of posting lists that a Series request used.", lists, "tenant"),
		resultSeries: f.histograms("thanos_bucket_store_series_result_series",
			"Series that a Series request returned.", prometheus.ExponentialBuckets(100, 2, 15),
			"tenant"),
		getAllSeconds: f.histograms("thanos_bucket_store_series_get_all_duration_seconds",
			"Seconds that a Series request needed to find the postings of all blocks.",
			secondsBuckets, "tenant"),
		mergeSeconds: f.histograms("thanos_bucket_store_series_merge_duration_seconds",
			"Seconds that a Series request needed to merge and send its series.", secondsBuckets,
			"tenant"),
		sentChunkSize: newSizeHistogram("thanos_bucket_store_sent_chunk_size_bytes",
			"Bytes of chunks of each series that was sent.", reg),
		emptyPostings: f.counters("thanos_bucket_store_empty_postings_total",
			"Queried blocks in which the matchers of a request matched no series.", "tenant"),
		seriesRefetches: f.counters("thanos_bucket_store_series_refetches_total",
			"Series entries that needed a second read because they were longer than estimated.",
			"tenant"),
		chunkRefetches: f.counters("thanos_bucket_store_chunk_refetches_total",
			"Chunk records that needed a second read because they were longer than estimated.",
			"tenant"),
		lazyBlocks: f.counter(
			"thanos_bucket_store_lazy_expanded_postings_total",
			"Queried blocks with matchers that were checked on series instead of read as postings.",
		),
		// larder has only this reason: reading the lists would cost more than it saves.
		lazyGroups: f.counters(
			"thanos_bucket_store_lazy_expanded_posting_groups_total",
			"Label names whose matchers were checked on series, not read as postings, by reason.",
			"reason",
		).WithLabelValues("postings_size"),
		seriesRequested: f.histogram("thanos_store_server_series_requested",
			"Series that a successful Series request returned.", 1, 10, 100, 1000, 10000, 100000,
			1000000),
		chunksRequested: f.histogram("thanos_store_server_chunks_requested",
			"Chunks that a successful Series request returned.", 1, 100, 1000, 10000, 100000,
			10000000, 100000000, 1000000000),
		fetches: newFetchMetrics(f),
		tenants: newTenantMetrics(f),

		stageSeconds: f.histograms("larder_stage_duration_seconds",
			"Seconds that a request spent in a stage. Stages overlap.",
			prometheus.ExponentialBuckets(0.0005, 2, 18), "method", "stage"),
		overruns: budgetMetrics(f, budgets),
		firstFrame: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "larder_series_first_frame_seconds",
			Help:    "Seconds from the start of a Series request to its first frame.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 18),
		}),
		bytesSent: f.counter("larder_series_sent_bytes_total",
			"Bytes of Series responses that were sent, before compression."),
		requeued: f.counters(
			"larder_requests_requeued_total",
			"Times that a request needed more memory than was free, released all and waited for it.",
			"method",
		),
		corruptRecords: f.counter("larder_chunk_records_corrupt_total",
			"Chunk records that failed verification when they were used."),
		unknownEncodings: f.counters("larder_chunk_unknown_encoding_total",
			"Chunks with an encoding that larder does not support, by encoding.", "encoding"),
	}
	f.owned(m.sentChunkSize, []string{"tenant"})
	for _, method := range []string{methodSeries, methodLabelNames, methodLabelValues} {
		m.requeued.WithLabelValues(method)
	}
	m.seriesRefetches.WithLabelValues(names.first())
	m.chunkRefetches.WithLabelValues(names.first())
	m.emptyPostings.WithLabelValues(names.first())
	return m
}

// observe records a finished request. label is the tenant's name in metrics.
func (m *metrics) observe(r *request, label string) {
	for i, name := range stageNames {
		if d := r.stages[i].Load(); d > 0 {
			r.observe(m.stageSeconds.WithLabelValues(r.method, name), time.Duration(d).Seconds())
		}
	}
	m.fetches.observe(r, label)
	m.tenants.observe(r, label)
	if n := r.decoded.FollowUps; n > 0 {
		m.seriesRefetches.WithLabelValues(label).Add(float64(n))
	}
	if n := r.records.FollowUps; n > 0 {
		m.chunkRefetches.WithLabelValues(label).Add(float64(n))
	}
	if r.emptyBlocks > 0 {
		m.emptyPostings.WithLabelValues(label).Add(float64(r.emptyBlocks))
	}
	m.lazyBlocks.Add(float64(r.lazyBlocks))
	m.lazyGroups.Add(float64(r.planned.Pending))
	if r.method != methodSeries {
		return
	}
	if r.firstFrame > 0 {
		r.observe(m.firstFrame, r.firstFrame.Seconds())
	}
	m.bytesSent.Add(float64(r.sent.Bytes))
	if r.succeeded {
		r.observe(m.seriesRequested, float64(r.sent.Series))
		r.observe(m.chunksRequested, float64(r.sent.Chunks))
	}
	r.observe(m.blocksQueried.WithLabelValues(label), float64(r.blocksQueried))
	r.observe(m.postingsSize.WithLabelValues(label), float64(r.planned.ListBytes))
	r.observe(m.resultSeries.WithLabelValues(label), float64(r.sent.Series))
	m.sentChunkSize.observe(label, &r.sentSizes)
	r.observe(m.getAllSeconds.WithLabelValues(label),
		time.Duration(r.stages[stagePostings].Load()).Seconds())
	planned := time.Duration(r.stages[stageGate].Load() + r.stages[stagePostings].Load())
	r.observe(m.mergeSeconds.WithLabelValues(label), (time.Since(r.start) - planned).Seconds())
	items := [...]int64{int64(r.planned.Lists), r.decoded.Entries, r.records.Records}
	for i, k := range r.kinds() {
		r.observe(m.dataTouched.WithLabelValues(k.name, label), float64(items[i]))
		r.observe(m.dataFetched.WithLabelValues(k.name, label), float64(k.acct.Fetched.Load()))
		r.observe(m.dataSizeTouched.WithLabelValues(k.name, label),
			float64(k.acct.TouchedBytes.Load()))
		r.observe(m.dataSizeFetched.WithLabelValues(k.name, label),
			float64(k.acct.FetchedBytes.Load()))
	}
}
