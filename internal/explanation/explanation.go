package explanation

import (
	"math"
	"time"
)

// Explanation says what a request would read, or what it read if Ran is set: until it failed, if
// it did.
type Explanation struct {
	Ran      bool   `json:"ran"`
	Tenant   string `json:"tenant"`
	Matchers string `json:"matchers"`
	// MinTime and MaxTime are in milliseconds, both included.
	MinTime int64 `json:"minTime"`
	MaxTime int64 `json:"maxTime"`
	// SkipChunks says that the request asks for no chunks.
	SkipChunks bool `json:"skipChunks"`

	Total Phases `json:"total"`
	// Trips are the reads of the bucket that follow one another before the first series can be
	// sent, with the caches as they were: each phase that reads takes one. nil if the request ran,
	// because they are not measured.
	Trips *int `json:"trips,omitempty"`
	// Blocks has the blocks that read most, at most MaxBlocks. Queried counts all.
	Blocks  []Block `json:"blocks"`
	Queried int     `json:"queried"`

	// Run has what only a request that ran knows.
	Run *Run `json:"run,omitempty"`
	// Notes say what is not known, in sentences.
	Notes []string `json:"notes,omitempty"`
}

// MaxBlocks bounds the blocks of an explanation.
const MaxBlocks = 1000

// Run is how a request went.
type Run struct {
	Seconds    float64 `json:"seconds"`
	FirstFrame float64 `json:"firstFrameSeconds"`
	Series     int64   `json:"series"`
	Chunks     int64   `json:"chunks"`
	Bytes      int64   `json:"bytes"`
	Attempts   int     `json:"attempts"`
	Stages     []Stage `json:"stages"`
}

// Stage is the time of a stage. Stages overlap.
type Stage struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
}

// Block is what one block takes.
type Block struct {
	ID         string `json:"ulid"`
	MinTime    int64  `json:"minTime"`
	MaxTime    int64  `json:"maxTime"`
	Resolution int64  `json:"resolution"`
	Labels     string `json:"labels"`
	// From says where the series come from: see the constants.
	From string `json:"from"`
	// Pending are the label names whose matchers are checked on the series.
	Pending int `json:"pendingLabels"`
	Phases
}

// Values of Block.From.
const (
	FromSet      = "series in memory"
	FromKept     = "kept postings"
	FromPostings = "posting lists"
	FromNothing  = "nothing matches"
	FromRun      = "as it ran"
)

// Phases are the three kinds of reads.
type Phases struct {
	Postings Phase `json:"postings"`
	Series   Phase `json:"series"`
	Chunks   Phase `json:"chunks"`
	// Sum adds the three up. Its Items are 0.
	Sum Phase `json:"sum"`
}

// Phase is what one kind of reads takes.
type Phase struct {
	// Items are posting lists, series entries, or chunks.
	Items int64 `json:"items"`
	// Estimated says that figures are estimates. Otherwise they are known exactly.
	Estimated bool `json:"estimated"`
	// Needed is what is read with empty caches; its requests are unknown if the request ran.
	Needed Reads `json:"needed"`
	// Read is what is read with the caches as they are, or what the request read.
	Read Reads `json:"read"`
	// Pages are needed. Memory, Disk, Memcached and Shared of them come from there. Shared ones are
	// those that another request was reading. Forecasts do not know the last two.
	Pages     int64 `json:"pages"`
	Memory    int64 `json:"pagesMemory"`
	Disk      int64 `json:"pagesDisk"`
	Memcached int64 `json:"pagesMemcached"`
	Shared    int64 `json:"pagesShared"`
}

// Reads are requests to the bucket. USD is their list price. Data that leaves the bucket within its
// region costs nothing.
type Reads struct {
	Requests int64   `json:"requests"`
	Bytes    int64   `json:"bytes"`
	USD      float64 `json:"usd"`
}

// Add adds o to p.
func (p *Phase) Add(o Phase) {
	p.Items += o.Items
	p.Estimated = p.Estimated || o.Estimated
	p.Needed.add(o.Needed)
	p.Read.add(o.Read)
	p.Pages += o.Pages
	p.Memory += o.Memory
	p.Disk += o.Disk
	p.Memcached += o.Memcached
	p.Shared += o.Shared
}

func (r *Reads) add(o Reads) {
	r.Requests += o.Requests
	r.Bytes += o.Bytes
	r.USD += o.USD
}

// Finish sets Sum.
func (p *Phases) Finish() {
	p.Sum = Phase{}
	for _, one := range []Phase{p.Postings, p.Series, p.Chunks} {
		one.Items = 0
		p.Sum.Add(one)
	}
}

// Add adds the phases of o to p.
func (p *Phases) Add(o Phases) {
	p.Postings.Add(o.Postings)
	p.Series.Add(o.Series)
	p.Chunks.Add(o.Chunks)
}

// Seconds returns d in seconds, to the microsecond.
func Seconds(d time.Duration) float64 { return math.Round(d.Seconds()*1e6) / 1e6 }
