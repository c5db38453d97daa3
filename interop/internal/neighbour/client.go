package neighbour

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"time"
)

// Client calls the HTTP API of Prometheus, with the additional parameters of Thanos's Querier.
type Client struct {
	// Header is added to every request.
	Header http.Header
	base   string
	http   *http.Client
}

// NewClient returns a client for the server at base, a URL without a path, or with a prefix.
func NewClient(base string) *Client {
	return &Client{
		base: strings.TrimSuffix(base, "/"),
		http: &http.Client{Timeout: 2 * time.Minute},
	}
}

// Params are the parameters of a request to a Querier. Zero values are not sent; then the Querier's
// flags decide. Prometheus knows only Stats, Timeout and Lookback.
type Params struct {
	Dedup           *bool
	PartialResponse *bool
	// MaxSourceResolution is "0s", "5m", "1h" or "auto".
	MaxSourceResolution string
	// Engine is "prometheus" or "thanos".
	Engine        string
	ReplicaLabels []string
	// StoreMatch selects stores by a selector of their external labels or __address__.
	StoreMatch []string
	Lookback   time.Duration
	Timeout    time.Duration
	// Stats asks for timings and sample counts, Analyze for the operator tree of Thanos's engine.
	Stats, Analyze bool
}

func (p Params) values() url.Values {
	v := url.Values{}
	set := func(name, value string) {
		if value != "" {
			v.Set(name, value)
		}
	}
	if p.Dedup != nil {
		v.Set("dedup", strconv.FormatBool(*p.Dedup))
	}
	if p.PartialResponse != nil {
		v.Set("partial_response", strconv.FormatBool(*p.PartialResponse))
	}
	set("max_source_resolution", p.MaxSourceResolution)
	set("engine", p.Engine)
	for _, l := range p.ReplicaLabels {
		v.Add("replicaLabels[]", l)
	}
	for _, m := range p.StoreMatch {
		v.Add("storeMatch[]", m)
	}
	if p.Lookback > 0 {
		v.Set("lookback_delta", p.Lookback.String())
	}
	if p.Timeout > 0 {
		v.Set("timeout", p.Timeout.String())
	}
	if p.Stats {
		v.Set("stats", "all")
	}
	if p.Analyze {
		v.Set("analyze", "true")
	}
	return v
}

// Instant evaluates a query at t milliseconds. An error answer is a Result, not an error: see
// Result.Status.
func (c *Client) Instant(ctx context.Context, query string, t int64, p Params) (*Result, error) {
	v := p.values()
	v.Set("query", query)
	v.Set("time", seconds(t))
	return c.query(ctx, "/api/v1/query", v)
}

// Range evaluates a query at start, start+step, ... end, in milliseconds.
func (c *Client) Range(
	ctx context.Context, query string, start, end, step int64, p Params,
) (*Result, error) {
	v := p.values()
	v.Set("query", query)
	v.Set("start", seconds(start))
	v.Set("end", seconds(end))
	v.Set("step", seconds(step))
	return c.query(ctx, "/api/v1/query_range", v)
}

// List is the answer of a label API: strings for names and values, label sets in Prometheus's
// notation for series; sorted.
type List struct {
	Answer
	Items []string
}

// LabelNames asks for the label names of matching series between start and end, in milliseconds.
func (c *Client) LabelNames(
	ctx context.Context, match []string, start, end int64, p Params,
) (*List, error) {
	return c.list(ctx, "/api/v1/labels", match, start, end, p)
}

// LabelValues asks for the values of one label.
func (c *Client) LabelValues(
	ctx context.Context, name string, match []string, start, end int64, p Params,
) (*List, error) {
	return c.list(ctx, "/api/v1/label/"+url.PathEscape(name)+"/values", match, start, end, p)
}

// Series asks for label sets.
func (c *Client) Series(
	ctx context.Context, match []string, start, end int64, p Params,
) (*List, error) {
	v := p.values()
	body, l, err := c.matching(ctx, "/api/v1/series", v, match, start, end)
	if err != nil {
		return nil, err
	}
	var sets []map[string]string
	if err := decode(body.Data, &sets); err != nil {
		return nil, err
	}
	for _, s := range sets {
		l.Items = append(l.Items, labelString(s))
	}
	sort.Strings(l.Items)
	return l, nil
}

func (c *Client) list(
	ctx context.Context, path string, match []string, start, end int64, p Params,
) (*List, error) {
	body, l, err := c.matching(ctx, path, p.values(), match, start, end)
	if err != nil {
		return nil, err
	}
	if err := decode(body.Data, &l.Items); err != nil {
		return nil, err
	}
	sort.Strings(l.Items)
	return l, nil
}

func (c *Client) matching(
	ctx context.Context, path string, v url.Values, match []string, start, end int64,
) (*envelope, *List, error) {
	for _, m := range match {
		v.Add("match[]", m)
	}
	v.Set("start", seconds(start))
	v.Set("end", seconds(end))
	body, err := c.get(ctx, path, v)
	if err != nil {
		return nil, nil, err
	}
	return body, &List{Answer: body.Answer}, nil
}

// Store is what a Querier knows about a StoreAPI.
type Store struct {
	Component string              `json:"-"`
	Name      string              `json:"name"`
	LastError string              `json:"-"`
	LabelSets []map[string]string `json:"labelSets"`
	MinTime   int64               `json:"minTime"`
	MaxTime   int64               `json:"maxTime"`
}

// Stores asks a Querier for its StoreAPIs.
func (c *Client) Stores(ctx context.Context) ([]Store, error) {
	body, err := c.get(ctx, "/api/v1/stores", url.Values{})
	if err != nil {
		return nil, err
	}
	var by map[string][]struct {
		Store
		// null, or an object or a string, by version.
		LastError json.RawMessage `json:"lastError"`
	}
	if err := decode(body.Data, &by); err != nil {
		return nil, err
	}
	var out []Store
	for component, all := range by {
		for _, s := range all {
			s.Store.Component = component
			if e := string(s.LastError); e != "null" {
				s.Store.LastError = e
			}
			out = append(out, s.Store)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}

// Answer has the fields of every answer of the HTTP API.
type Answer struct {
	// Code is the HTTP status.
	Code      int      `json:"-"`
	Status    string   `json:"status"`
	ErrorType string   `json:"errorType"`
	Error     string   `json:"error"`
	Warnings  []string `json:"warnings"`
	// Infos are annotations that Prometheus lists separately; Thanos lists them as warnings.
	Infos []string `json:"infos"`
}

// OK reports whether the request was answered.
func (a Answer) OK() bool { return a.Status == "success" }

type envelope struct {
	Answer
	Data json.RawMessage `json:"data"`
}

func (c *Client) get(ctx context.Context, path string, v url.Values) (*envelope, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path+"?"+v.Encode(), nil)
	if err != nil {
		return nil, err
	}
	for name, values := range c.Header {
		req.Header[name] = values
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	e := &envelope{}
	if err := json.Unmarshal(raw, e); err != nil {
		return nil, fmt.Errorf(
			"%s: status %d, not JSON: %w: %.200s", path, resp.StatusCode, err, raw,
		)
	}
	e.Code = resp.StatusCode
	return e, nil
}

// decode decodes data; missing data and null are empty.
func decode(data json.RawMessage, into any) error {
	if len(data) == 0 || string(data) == "null" {
		return nil
	}
	return json.Unmarshal(data, into)
}

func seconds(ms int64) string { return strconv.FormatFloat(float64(ms)/1000, 'f', 3, 64) }
