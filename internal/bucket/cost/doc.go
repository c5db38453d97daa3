// Package cost says what reads of the bucket cost.
//
// A Model has the figures of a bucket and prices sets of reads. Code that chooses between reads
// asks it: which gaps are read along, how a long stretch is split, whether one more trip pays. A
// Meter measures a bucket and returns the Model of it. Functions of a Model are pure: equal inputs
// give equal plans.
//
// # The objective
//
// The cost of reads that are sent together is
//
//	first byte + longest read / bandwidth + all bytes / total bandwidth + price x requests
//
// A chain of dependent reads pays the first byte once for each trip. The price stands for the CPU
// time and the bill of a request, which do not depend on its size. It is what an operator sets.
// Bytes are bounded as well: a gap above Model.MaxGap is never read along, and all gaps of a plan
// together have at most Model.MaxAlong. Therefore a plan reads at most what a plan that joins all
// gaps up to MaxGap would read.
//
// The longest read is paid for once: if one join of two distant ranges pays, then so do most joins
// of ranges that are as far apart, and together they may read many times the needed bytes.
// Therefore MaxAlong is there.
//
// # Ownership, locks
//
// A Model is a value. A Meter owns two tables of counters. It has no lock of its own and is safe
// for concurrent use.
//
// # Accepted risks
//
// A Meter rounds what it measures to powers of two, because a plan that changes with every sample
// would make equal queries differ. A plan may therefore be off by the effect of a factor of 1.75.
package cost
