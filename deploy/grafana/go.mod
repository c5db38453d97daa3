// Generates the dashboards, apart from larder's module: what draws them is not part of larder.
module larder/deploy/grafana

go 1.26.7

require github.com/grafana/grafana-foundation-sdk/go v0.0.22
