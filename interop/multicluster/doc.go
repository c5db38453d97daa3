// Package multicluster proves the usual deployment over several clusters: a Querier in one cluster
// reaches larder in another through a proxy, everybody shows certificates of one authority, and who
// has none is kept out.
package multicluster
