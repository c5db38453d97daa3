package membership

// Identity says to which cluster a process belongs. Processes that share blocks have the same one.
type Identity struct {
	// Cluster is the name in the configuration file, empty for none.
	Cluster string `json:"cluster,omitempty"`
	// Bucket tells buckets apart, empty if unknown.
	Bucket string `json:"bucket,omitempty"`
}

// differs reports whether two processes cannot be members of one cluster. Names decide if both have
// one. A process that gives no identity counts as a member, because older versions give none.
func (i Identity) differs(o Identity) bool {
	if i.Cluster != "" && o.Cluster != "" {
		return i.Cluster != o.Cluster
	}
	return i.Bucket != "" && o.Bucket != "" && i.Bucket != o.Bucket
}

// maxClusterBytes bounds the name of a cluster.
const maxClusterBytes = 253
