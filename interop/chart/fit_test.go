package chart

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
)

const podIndex = "apps.kubernetes.io/pod-index"

// pod is a pod that the cluster makes of a StatefulSet.
type pod struct {
	set     *apps.StatefulSet
	ordinal int
	labels  labels.Set
}

// pods returns the pods of all StatefulSets, with the label that their controller adds.
func (l *layout) pods() []pod {
	var out []pod
	for _, s := range l.sets {
		for i := range int(*s.Spec.Replicas) {
			all := maps.Clone(s.Spec.Template.Labels)
			all[podIndex] = strconv.Itoa(i)
			out = append(out, pod{s, i, all})
		}
	}
	return out
}

// larder returns the container of larder.
func (p pod) larder() *core.Container {
	return &p.set.Spec.Template.Spec.Containers[0]
}

// selected returns the pods that a selector matches.
func selected(pods []pod, s labels.Selector) []pod {
	return slices.DeleteFunc(slices.Clone(pods), func(p pod) bool { return !s.Matches(p.labels) })
}

func selector(t *testing.T, s *meta.LabelSelector) labels.Selector {
	t.Helper()
	out, err := meta.LabelSelectorAsSelector(s)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestNames: each object has a name that its kind allows, once, in the namespace that it belongs
// in.
func TestNames(t *testing.T) {
	each(t, func(t *testing.T, l *layout) {
		seen := map[string]bool{}
		for i, m := range l.metadatas {
			key := l.kinds[i] + " " + m.GetNamespace() + "/" + m.GetName()
			if seen[key] {
				t.Errorf("%s is there twice", key)
			}
			seen[key] = true
			for _, problem := range validation.IsDNS1123Label(m.GetName()) {
				t.Errorf("%s: name %s", key, problem)
			}
			for k, v := range m.GetLabels() {
				problems := append(
					validation.IsQualifiedName(k),
					validation.IsValidLabelValue(v)...)
				for _, problem := range problems {
					t.Errorf("%s: label %s=%s: %s", key, k, v, problem)
				}
			}
		}
	})
}

// TestLongNames: the longest names of releases and zones still make valid names.
func TestLongNames(t *testing.T) {
	rendered, err := render(required, `
fullnameOverride: `+strings.Repeat("n", 53)+`
zones: [{name: `+strings.Repeat("z", 15)+`}, {name: b}]
sharded: {enabled: true, hashPartitioning: {shards: 101}}`)
	if err != nil {
		t.Fatal(err)
	}
	o, err := decode(texts(rendered))
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range o.metadatas {
		limit := validation.DNS1123LabelMaxLength
		if o.kinds[i] == "apps/v1 StatefulSet" {
			limit = 52 // a label of its pods is its name and a hash
		}
		if len(m.GetName()) > limit {
			t.Errorf("%s %s has %d characters", o.kinds[i], m.GetName(), len(m.GetName()))
		}
	}
}

// TestSelectors: StatefulSets select their own pods only; each ordinal's Service, budget and group
// have the pods of that ordinal in all zones; the peers' Service has all pods.
func TestSelectors(t *testing.T) {
	each(t, func(t *testing.T, l *layout) {
		pods := l.pods()
		replicas := *l.sets[0].Spec.Replicas
		for _, s := range l.sets {
			own := selected(pods, selector(t, s.Spec.Selector))
			if len(own) != int(*s.Spec.Replicas) || own[0].set != s {
				t.Errorf("%s selects %d pods, want its own %d", s.Name, len(own), *s.Spec.Replicas)
			}
			if *s.Spec.Replicas != replicas {
				t.Errorf("%s has %d pods, another zone %d", s.Name, *s.Spec.Replicas, replicas)
			}
			if s.Spec.PodManagementPolicy != apps.ParallelPodManagement {
				t.Errorf("%s: podManagementPolicy is %q", s.Name, s.Spec.PodManagementPolicy)
			}
			if !slices.ContainsFunc(
				l.services,
				func(v *core.Service) bool { return v.Name == s.Spec.ServiceName },
			) {
				t.Errorf("%s: there is no Service %s", s.Name, s.Spec.ServiceName)
			}
		}
		ordinals := 0
		for _, s := range l.services {
			if s.Spec.ClusterIP != core.ClusterIPNone {
				t.Errorf("Service %s is not headless", s.Name)
			}
			got := selected(pods, labels.SelectorFromSet(s.Spec.Selector))
			index, isShard := s.Spec.Selector[podIndex]
			if s.Spec.PublishNotReadyAddresses == isShard {
				t.Errorf("Service %s: publishNotReadyAddresses is %v", s.Name, !isShard)
			}
			if !isShard {
				if len(got) != len(pods) {
					t.Errorf("Service %s has %d pods of %d", s.Name, len(got), len(pods))
				}
				continue
			}
			ordinals++
			if len(got) != len(l.sets) {
				t.Errorf(
					"Service %s has %d pods, want one of each of %d zones",
					s.Name,
					len(got),
					len(l.sets),
				)
			}
			if !strings.HasSuffix(s.Name, "-shard-"+index) {
				t.Errorf("Service %s selects ordinal %s", s.Name, index)
			}
		}
		if ordinals != int(replicas) {
			t.Errorf("%d ordinals have a Service, want %d", ordinals, replicas)
		}
	})
}

// TestBudgets: every pod is in one budget, and with several zones a budget has the pods of one
// ordinal.
func TestBudgets(t *testing.T) {
	each(t, func(t *testing.T, l *layout) {
		pods := l.pods()
		count := map[string]int{}
		for _, b := range l.budgets {
			got := selected(pods, selector(t, b.Spec.Selector))
			for _, p := range got {
				count[p.set.Name+strconv.Itoa(p.ordinal)]++
			}
			if len(l.sets) > 1 && len(got) != len(l.sets) {
				t.Errorf("%s has %d pods, want one of each zone", b.Name, len(got))
			}
			if (b.Spec.MinAvailable == nil) == (b.Spec.MaxUnavailable == nil) {
				t.Errorf("%s: want one of minAvailable and maxUnavailable", b.Name)
			}
		}
		for name, n := range count {
			if n != 1 {
				t.Errorf("%d budgets have pod %s: an eviction would fail", n, name)
			}
		}
		if len(l.budgets) > 0 && len(count) != len(pods) {
			t.Errorf("budgets have %d pods of %d", len(count), len(pods))
		}
	})
}

// TestPorts: Services, probes, policies and monitors name ports of the container, and the arguments
// listen on them.
func TestPorts(t *testing.T) {
	each(t, func(t *testing.T, l *layout) {
		ports := map[string]int32{}
		for _, s := range l.sets {
			c := (pod{set: s}).larder()
			for _, p := range c.Ports {
				ports[p.Name] = p.ContainerPort
			}
			for _, name := range []string{"grpc", "http"} {
				want := fmt.Sprintf("--%s-address=0.0.0.0:%d", name, ports[name])
				if !slices.Contains(c.Args, want) {
					t.Errorf("%s: no argument %s in %q", s.Name, want, c.Args)
				}
			}
			for _, p := range []*core.Probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
				if p != nil && ports[p.HTTPGet.Port.StrVal] == 0 {
					t.Errorf("%s: a probe asks port %s", s.Name, p.HTTPGet.Port.StrVal)
				}
				if p != nil && (p.HTTPGet.Scheme == core.URISchemeHTTPS) != (l.name == "TLS") {
					t.Errorf("%s: a probe uses %s", s.Name, p.HTTPGet.Scheme)
				}
			}
		}
		for _, s := range l.services {
			for _, p := range s.Spec.Ports {
				if ports[p.TargetPort.StrVal] == 0 || ports[p.TargetPort.StrVal] != p.Port ||
					p.Name != p.TargetPort.StrVal {
					t.Errorf(
						"Service %s: port %s %d goes to %s",
						s.Name,
						p.Name,
						p.Port,
						p.TargetPort.StrVal,
					)
				}
			}
		}
		for _, n := range l.policies {
			if got := selected(l.pods(), selector(t, &n.Spec.PodSelector)); len(
				got,
			) != len(
				l.pods(),
			) {
				t.Errorf("NetworkPolicy %s has %d pods", n.Name, len(got))
			}
			open := map[string]bool{}
			for _, rule := range n.Spec.Ingress {
				for _, p := range rule.Ports {
					if p.Port.Type != intstr.String || ports[p.Port.StrVal] == 0 {
						t.Errorf("NetworkPolicy %s: port %s", n.Name, p.Port)
					}
					open[p.Port.StrVal] = true
				}
			}
			if len(open) != len(ports) {
				t.Errorf("NetworkPolicy %s opens %v of %v", n.Name, open, ports)
			}
		}
		for _, m := range l.monitors {
			var found []*core.Service
			for _, s := range l.services {
				if selector(t, &m.Spec.Selector).Matches(labels.Set(s.Labels)) {
					found = append(found, s)
				}
			}
			if len(found) != 1 || !found[0].Spec.PublishNotReadyAddresses {
				t.Fatalf(
					"ServiceMonitor %s has %d Services, want that of the peers only",
					m.Name,
					len(found),
				)
			}
			if !slices.Equal(m.Spec.NamespaceSelector.MatchNames, []string{found[0].Namespace}) {
				t.Errorf(
					"ServiceMonitor %s looks in %v",
					m.Name,
					m.Spec.NamespaceSelector.MatchNames,
				)
			}
			for _, e := range m.Spec.Endpoints {
				if !slices.ContainsFunc(
					found[0].Spec.Ports,
					func(p core.ServicePort) bool { return p.Name == e.Port },
				) {
					t.Errorf("ServiceMonitor %s: port %s", m.Name, e.Port)
				}
			}
		}
	})
}

// TestVolumes: every mount has a volume and every volume a mount, each at a place of its own. A
// mount without subPath follows changes. What the chart's own volumes read is there.
func TestVolumes(t *testing.T) {
	each(t, func(t *testing.T, l *layout) {
		for _, s := range l.sets {
			spec := s.Spec.Template.Spec
			volumes := map[string]bool{}
			for _, v := range spec.Volumes {
				if volumes[v.Name] {
					t.Errorf("%s: two volumes %s", s.Name, v.Name)
				}
				volumes[v.Name] = true
			}
			for _, c := range s.Spec.VolumeClaimTemplates {
				if volumes[c.Name] {
					t.Errorf("%s: two volumes %s", s.Name, c.Name)
				}
				volumes[c.Name] = true
			}
			paths := map[string]bool{}
			for _, m := range (pod{set: s}).larder().VolumeMounts {
				if !volumes[m.Name] {
					t.Errorf("%s: %s mounts %s, which is not there", s.Name, m.MountPath, m.Name)
				}
				delete(volumes, m.Name)
				if m.SubPath != "" {
					t.Errorf("%s: %s has a subPath", s.Name, m.MountPath)
				}
				if paths[m.MountPath] {
					t.Errorf("%s: %s is mounted twice", s.Name, m.MountPath)
				}
				paths[m.MountPath] = true
				if m.ReadOnly == (m.Name == "data" || m.Name == "more") {
					t.Errorf("%s: %s: readOnly is %v", s.Name, m.MountPath, m.ReadOnly)
				}
			}
			for name := range volumes {
				t.Errorf("%s: volume %s is not mounted", s.Name, name)
			}
		}
		mounted := map[string]bool{}
		for _, p := range l.pods() {
			for file, source := range p.files(t) {
				if source.config != "" && l.config(source.config) == nil &&
					source.config != "ca-bundle" {
					t.Errorf("%s: there is no ConfigMap %s", file, source.config)
				}
				mounted[source.config] = true
			}
		}
		for _, c := range l.configs {
			ours := strings.HasSuffix(c.Name, "-shards") || strings.HasSuffix(c.Name, "-caches")
			board := strings.Contains(c.Name, "-dashboard-") // for Grafana
			if ours && !board && !mounted[c.Name] {
				t.Errorf("ConfigMap %s is not mounted", c.Name)
			}
		}
	})
}

// TestArgumentsNameMountedFiles: every path in an argument is a file of a volume, for each ordinal.
func TestArgumentsNameMountedFiles(t *testing.T) {
	each(t, func(t *testing.T, l *layout) {
		for _, p := range l.pods() {
			files := p.files(t)
			for _, arg := range p.args() {
				flag, value, _ := strings.Cut(arg, "=")
				if !strings.HasPrefix(value, "/") || flag == "--data-dir" {
					continue
				}
				source, ok := files[value]
				if !ok {
					t.Errorf("%s-%d: %s is not in a volume: %v", p.set.Name, p.ordinal, arg,
						slices.Sorted(maps.Keys(files)))
				}
				if c := l.config(source.config); c != nil && c.Data[source.key] == "" {
					t.Errorf("%s: ConfigMap %s has no %s", arg, source.config, source.key)
				}
			}
		}
	})
}

// source is where a mounted file comes from.
type source struct{ config, secret, key string }

// config returns a rendered ConfigMap.
func (l *layout) config(name string) *core.ConfigMap {
	for _, c := range l.configs {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// files returns the files that the pod sees in its volumes. ConfigMaps that are mounted whole have
// the files that the arguments name.
func (p pod) files(t *testing.T) map[string]source {
	t.Helper()
	out := map[string]source{}
	add := func(dir, config, secret string, items []core.KeyToPath) {
		for _, i := range items {
			out[path.Join(dir, i.Path)] = source{config, secret, i.Key}
		}
		if len(items) > 0 {
			return
		}
		for _, arg := range p.args() {
			if _, file, _ := strings.Cut(arg, "="); path.Dir(file) == dir {
				out[file] = source{config, secret, path.Base(file)}
			}
		}
	}
	for _, m := range p.larder().VolumeMounts {
		for _, v := range p.set.Spec.Template.Spec.Volumes {
			switch {
			case v.Name != m.Name:
			case v.ConfigMap != nil:
				add(m.MountPath, v.ConfigMap.Name, "", v.ConfigMap.Items)
			case v.Secret != nil:
				add(m.MountPath, "", v.Secret.SecretName, v.Secret.Items)
			case v.Projected != nil:
				for _, s := range v.Projected.Sources {
					if s.Secret != nil {
						add(m.MountPath, "", s.Secret.Name, s.Secret.Items)
					} else {
						add(m.MountPath, s.ConfigMap.Name, "", s.ConfigMap.Items)
					}
				}
			}
		}
	}
	return out
}

// args returns the arguments with the environment filled in, as Kubernetes does.
func (p pod) args() []string {
	var out []string
	for _, a := range p.larder().Args {
		for _, e := range p.larder().Env {
			value := e.Value
			if e.ValueFrom != nil && e.ValueFrom.FieldRef != nil {
				field, _ := strings.CutPrefix(e.ValueFrom.FieldRef.FieldPath, "metadata.labels['")
				value = p.labels[strings.TrimSuffix(field, "']")]
			}
			a = strings.ReplaceAll(a, "$("+e.Name+")", value)
		}
		out = append(out, a)
	}
	return out
}

// TestEnvironment: no name is set twice, which Helm 4 refuses, and no argument names a variable
// that is not set.
func TestEnvironment(t *testing.T) {
	each(t, func(t *testing.T, l *layout) {
		for _, p := range l.pods() {
			seen := map[string]bool{}
			for _, e := range p.larder().Env {
				if seen[e.Name] {
					t.Errorf("%s: %s is set twice", p.set.Name, e.Name)
				}
				seen[e.Name] = true
			}
			for _, a := range p.args() {
				if strings.Contains(a, "$(") {
					t.Errorf("%s: %s: the variable is not set", p.set.Name, a)
				}
			}
		}
	})
}

// TestPods: pods are confined, stop later than they drain, and drain longer than a Querier keeps an
// address, which is 30 s.
func TestPods(t *testing.T) {
	each(t, func(t *testing.T, l *layout) {
		for _, s := range l.sets {
			spec, c := s.Spec.Template.Spec, (pod{set: s}).larder()
			switch sc, pc := c.SecurityContext, spec.SecurityContext; {
			case !*sc.ReadOnlyRootFilesystem, *sc.AllowPrivilegeEscalation,
				!slices.Equal(sc.Capabilities.Drop, []core.Capability{"ALL"}):
				t.Errorf("%s: the container has %+v", s.Name, sc)
			case !*pc.RunAsNonRoot, *pc.RunAsUser != 65532, *pc.FSGroup != 65532,
				pc.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault:
				t.Errorf("%s: the pod has %+v", s.Name, pc)
			}
			if c.Resources.Limits.Memory().IsZero() {
				t.Errorf("%s: no memory limit, from which larder derives GOMEMLIMIT", s.Name)
			}
			drain, grace := number(
				t,
				c.Args,
				"--drain-delay",
			), number(
				t,
				c.Args,
				"--grpc-grace-period",
			)
			if drain <= 30 || *spec.TerminationGracePeriodSeconds <= int64(drain+grace) {
				t.Errorf(
					"%s: drains for %d s and %d s, and is killed after %d s",
					s.Name,
					drain,
					grace,
					*spec.TerminationGracePeriodSeconds,
				)
			}
			onDelete := s.Spec.UpdateStrategy.Type == apps.OnDeleteStatefulSetStrategyType
			if onDelete != (len(l.sets) > 1) {
				t.Errorf(
					"%s: update strategy %s with %d zones",
					s.Name,
					s.Spec.UpdateStrategy.Type,
					len(l.sets),
				)
			}
			if s.Labels["rollout-group"] != "" && s.Spec.Template.Labels["name"] != s.Name {
				t.Errorf("%s: rollout-operator does not find its pods", s.Name)
			}
		}
	})
}

// TestDiskCacheSize: the disk cache is a part of the volume, in any unit of Kubernetes.
func TestDiskCacheSize(t *testing.T) {
	f := func(size string, percent int, want string) {
		t.Helper()
		rendered, err := render(required, fmt.Sprintf(
			"{persistence: {size: %s}, diskCache: {enabled: true, percent: %d}}", size, percent))
		if err != nil {
			t.Fatal(err)
		}
		o, err := decode(texts(rendered))
		if err != nil {
			t.Fatal(err)
		}
		if args := (pod{set: o.sets[0]}).larder().Args; !slices.Contains(
			args,
			"--disk-cache-size="+want,
		) {
			t.Errorf("%s, %d %%: %q", size, percent, args)
		}
	}
	f("20Gi", 70, "14336MB")
	f("1Ti", 50, "524288MB")
	f("1.5Gi", 50, "768MB")
	f("512Mi", 90, "460MB")
	f("100G", 50, "47683MB")
}

// number returns the seconds in an argument.
func number(t *testing.T, args []string, flag string) int {
	t.Helper()
	for _, a := range args {
		if v, ok := strings.CutPrefix(a, flag+"="); ok {
			n, err := strconv.Atoi(strings.TrimSuffix(v, "s"))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no %s in %q", flag, args)
	return 0
}
