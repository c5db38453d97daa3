package chart

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"sigs.k8s.io/yaml"
)

// endpoints is the file of --endpoint.sd-config-file, in the format of thanos query v0.42.
type endpoints struct {
	DefaultClientConfig map[string]any `json:"default_client_config"`
	Endpoints           []struct {
		Strict        bool   `json:"strict"`
		Group         bool   `json:"group"`
		Address       string `json:"address"`
		ServiceConfig string `json:"service_config"`
	} `json:"endpoints"`
}

// TestEndpoints: a Querier gets one group for each ordinal, by a name that resolves to its Service.
func TestEndpoints(t *testing.T) {
	each(t, func(t *testing.T, l *layout) {
		shards := map[string]bool{}
		for _, s := range l.services {
			if s.Spec.Selector[podIndex] != "" {
				address := fmt.Sprintf("dns+%s.%s.svc.cluster.local:%d", s.Name, s.Namespace,
					s.Spec.Ports[0].Port)
				shards[address] = true
			}
		}
		for _, c := range l.configs {
			if !strings.HasSuffix(c.Name, "-endpoints") {
				continue
			}
			var got endpoints
			if err := yaml.UnmarshalStrict([]byte(c.Data["endpoints.yaml"]), &got); err != nil {
				t.Fatal(err)
			}
			for _, e := range got.Endpoints {
				if !e.Group || e.Strict || !shards[e.Address] {
					t.Errorf("endpoint %+v, the Services are %v", e, shards)
				}
				delete(shards, e.Address)
				// A typo in the policy would make grpc ignore it or refuse all of it.
				conn, err := grpc.NewClient(
					"passthrough:///shard",
					grpc.WithDefaultServiceConfig(e.ServiceConfig),
					grpc.WithTransportCredentials(insecure.NewCredentials()),
				)
				if err != nil {
					t.Fatalf("service_config: %v", err)
				}
				if err := conn.Close(); err != nil {
					t.Error(err)
				}
				if !strings.Contains(e.ServiceConfig, `"name":[{}]`) ||
					!strings.Contains(e.ServiceConfig, "UNAVAILABLE") {
					t.Errorf("service_config does not repeat all methods: %s", e.ServiceConfig)
				}
			}
			left := 0
			if l.name == "shrinking" {
				left = 2 // the pods that will go away
			}
			if len(shards) != left {
				t.Errorf("no Querier asks %v, want %d such Services", shards, left)
			}
		}
	})
}
