package allowed

import "github.com/cespare/xxhash/v2"

func hashOf(data string) uint64 { return xxhash.Sum64String(data) }
