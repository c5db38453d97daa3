package admission

import (
	"context"
	"strings"

	"google.golang.org/grpc/metadata"
)

const (
	// DefaultTenant is the tenant of requests without a tenant header.
	DefaultTenant = "default-tenant"
	// MaxTenantBytes is the length in bytes to which TenantName cuts names.
	MaxTenantBytes = 128
)

// TenantOf returns the tenant of a gRPC request, as its client spells it.
func TenantOf(ctx context.Context) string {
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		if t := md.Get("thanos-tenant"); len(t) > 0 && t[0] != "" {
			return t[0]
		}
	}
	return DefaultTenant
}

// TenantName returns a tenant's name as limits, queues and metrics use it: valid UTF-8 of at most
// MaxTenantBytes. A name that is cut is copied, because queues keep names for longer than requests,
// and must not keep a long header with them.
func TenantName(name string) string {
	name = clip(name)
	if valid := strings.ToValidUTF8(name, "\uFFFD"); valid != name {
		name = clip(valid) // a replacement character is longer than the byte it replaces
	}
	return strings.ToValidUTF8(name, "")
}

func clip(name string) string {
	if len(name) > MaxTenantBytes {
		return strings.Clone(name[:MaxTenantBytes])
	}
	return name
}
