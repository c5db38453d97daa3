package admission

import (
	"context"
	"strings"

	"google.golang.org/grpc/metadata"
)

const (
	// DefaultTenant is the tenant of requests that name none.
	DefaultTenant = "default-tenant"
	// MaxTenantBytes is how much of a tenant's name counts.
	MaxTenantBytes = 128
)

// TenantOf returns the tenant that a gRPC request names, as its client spells it.
func TenantOf(ctx context.Context) string {
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		if t := md.Get("thanos-tenant"); len(t) > 0 && t[0] != "" {
			return t[0]
		}
	}
	return DefaultTenant
}

// TenantName returns the name of a tenant as limits, turns and metrics know it: valid UTF-8 of at
// most MaxTenantBytes. A name that is cut is copied, because queues keep names for longer than
// requests, and must not keep a long header with them.
func TenantName(name string) string {
	name = clip(name)
	if valid := strings.ToValidUTF8(name, "\uFFFD"); valid != name {
		name = clip(valid) // the replacement is longer than what it replaces
	}
	return strings.ToValidUTF8(name, "")
}

func clip(name string) string {
	if len(name) > MaxTenantBytes {
		return strings.Clone(name[:MaxTenantBytes])
	}
	return name
}
