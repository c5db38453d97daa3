// Package price says what a query costs at list prices.
package price

import (
	"time"

	"larder/interop/internal/compare/trips"
)

// List are the prices, in US dollars.
type List struct {
	// Get is the price of 1,000 GET and HEAD requests, ListRequest that of 1,000 listings.
	Get, ListRequest float64
	// CPUHour is the price of one hour of one virtual CPU.
	CPUHour float64
}

// Default are list prices of AWS in us-east-1, November 2026: S3 Standard, and a c6i.large (two
// virtual CPUs) on demand. Traffic between S3 and a machine of the same region is free.
func Default() List { return List{Get: 0.0004, ListRequest: 0.005, CPUHour: 0.085 / 2} }

// Thousand is the price of 1,000 queries that each use that much CPU time and ask that of the
// bucket.
func (l List) Thousand(cpu time.Duration, c trips.Count) float64 {
	gets := float64(c.Requests() - c.Lists)
	return gets*l.Get + float64(c.Lists)*l.ListRequest + 1000*cpu.Hours()*l.CPUHour
}
