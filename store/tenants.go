package store

import (
	"context"
	"strings"
	"sync"

	"google.golang.org/grpc/metadata"
)

// defaultTenant is the tenant of requests that name none.
const defaultTenant = "default-tenant"

// TenantOf returns the tenant that a gRPC request names, as its client spells it.
func TenantOf(ctx context.Context) string {
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		if t := md.Get("thanos-tenant"); len(t) > 0 && t[0] != "" {
			return t[0]
		}
	}
	return defaultTenant
}

const (
	// maxTenants bounds the tenants that metrics tell apart: whoever may send requests chooses their names.
	maxTenants = 1000
	// MaxTenantBytes is how much of the name of one counts.
	MaxTenantBytes = 128
	// otherTenant stands in metrics for all that are too many.
	otherTenant = "other"
)

// tenants are the tenants that metrics tell apart.
type tenants struct {
	mu    sync.Mutex // guards known; held for map operations alone
	known map[string]struct{}
}

// tenantName is the name of a tenant as limits and turns know it.
func tenantName(name string) string {
	if len(name) > MaxTenantBytes {
		name = name[:MaxTenantBytes]
	}
	return strings.ToValidUTF8(name, "\uFFFD")
}

// label returns what a tenant is called in metrics.
func (t *tenants) label(name string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.known[name]; ok {
		return name
	}
	if len(t.known) >= maxTenants {
		return otherTenant
	}
	if t.known == nil {
		t.known = map[string]struct{}{}
	}
	t.known[strings.Clone(name)] = struct{}{}
	return name
}
