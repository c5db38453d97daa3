// Program grafana writes Grafana's dashboards for larder.
//
// Run `make dashboards` after a change. The JSON goes to deploy/helm/larder/files/dashboards, from
// where the Helm chart puts it into ConfigMaps. A test fails if the committed files differ from
// what this program writes. interop/chart checks the ConfigMaps, and benchmarks/monitoring
// evaluates every expression over scrapes of a larder that answers requests.
//
// The package owns nothing beyond the files, and has no locks.
package main
