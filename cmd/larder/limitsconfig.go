package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"

	"go.yaml.in/yaml/v2"

	"larder/internal/config"
	"larder/internal/yamldoc"
	"larder/store/admission"
)

// limitsDoc is the document of --store.limits.config, the limits of tenants. Thanos does not have
// it.
type limitsDoc struct {
	Default limitsOfDoc            `yaml:"default"`
	Tenants map[string]limitsOfDoc `yaml:"tenants"`
}

// limitsOfDoc is the limits of a tenant. A missing key takes its value from default, and a key that
// default lacks from the flags.
type limitsOfDoc struct {
	Weight            *float64 `yaml:"weight"`
	RequestSeries     *uint64  `yaml:"request_series"`
	RequestSamples    *uint64  `yaml:"request_samples"`
	DownloadedBytes   *string  `yaml:"downloaded_bytes"`
	MaxConcurrent     *int     `yaml:"max_concurrent"`
	RequestBytesRatio *float64 `yaml:"request_bytes_ratio"`
	Shared            *bool    `yaml:"shared"`
}

// tenantLimits is the limits of named tenants, and of all others.
type tenantLimits struct {
	others  admission.LimitOptions
	tenants map[string]admission.LimitOptions
}

// minWeight and maxWeight bound the weight of a tenant. Outside of them, the arithmetic of turns
// would lose precision.
const minWeight, maxWeight = 0.001, 1000

// parseLimits parses the limits of tenants. flags are the limits of the flags, which an empty
// document does not change.
func parseLimits(b []byte, flags admission.LimitOptions) (tenantLimits, error) {
	var doc limitsDoc
	if len(bytes.TrimSpace(b)) > 0 {
		if err := yaml.UnmarshalStrict(b, &doc); err != nil {
			return tenantLimits{}, yamldoc.Shape{Of: doc}.Explain(b, err)
		}
	}
	others, err := doc.Default.over(flags)
	if err != nil {
		return tenantLimits{}, fmt.Errorf("default: %w", err)
	}
	if doc.Default.Shared != nil {
		others.Shared = *doc.Default.Shared
	}
	l := tenantLimits{others: others, tenants: map[string]admission.LimitOptions{}}
	for _, name := range slices.Sorted(maps.Keys(doc.Tenants)) {
		own := doc.Tenants[name]
		if name == "" || len(name) > admission.MaxTenantBytes || !utf8.ValidString(name) {
			return tenantLimits{}, fmt.Errorf(
				"tenants: %q is not a valid name: want UTF-8 of 1 to %d bytes", name,
				admission.MaxTenantBytes,
			)
		}
		if own.Shared != nil {
			return tenantLimits{}, fmt.Errorf(
				"tenants: %s: shared is only valid in default: a named tenant has its own turns", name,
			)
		}
		o, err := own.over(others)
		if err != nil {
			return tenantLimits{}, fmt.Errorf("tenants: %s: %w", name, err)
		}
		o.Shared = false
		l.tenants[name] = o
	}
	return l, nil
}

// over returns base with the values of the document.
func (d *limitsOfDoc) over(base admission.LimitOptions) (admission.LimitOptions, error) {
	o := base
	if d.Weight != nil {
		if o.Weight = *d.Weight; !(o.Weight >= minWeight && o.Weight <= maxWeight) {
			return o, fmt.Errorf("weight: %v is not from %v to %v", o.Weight, minWeight, maxWeight)
		}
	}
	if d.RequestSeries != nil {
		o.Series = *d.RequestSeries
	}
	if d.RequestSamples != nil {
		o.Samples = *d.RequestSamples
	}
	if d.DownloadedBytes != nil {
		n, err := config.ParseSize(*d.DownloadedBytes)
		if err != nil {
			return o, fmt.Errorf("downloaded_bytes: %w", err)
		}
		o.Bytes = uint64(n)
	}
	if d.MaxConcurrent != nil {
		if o.MaxConcurrent = *d.MaxConcurrent; o.MaxConcurrent < 0 {
			return o, errors.New("max_concurrent must not be below zero")
		}
	}
	if d.RequestBytesRatio != nil {
		if o.RequestBytes = *d.RequestBytesRatio; !(o.RequestBytes > 0 && o.RequestBytes <= 1) {
			return o, fmt.Errorf(
				"request_bytes_ratio: %v is not above 0 and at most 1", o.RequestBytes,
			)
		}
	}
	return o, nil
}
