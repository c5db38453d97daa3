package chart

import (
	"errors"
	"fmt"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// objects are the decoded documents of a layout.
type objects struct {
	sets      []*apps.StatefulSet
	services  []*core.Service
	configs   []*core.ConfigMap
	secrets   []*core.Secret
	accounts  []*core.ServiceAccount
	budgets   []*policy.PodDisruptionBudget
	policies  []*networking.NetworkPolicy
	monitors  []*monitoring.ServiceMonitor
	alerts    []*monitoring.PrometheusRule
	metadatas []meta.Object
	kinds     []string
}

// decode reads documents into the types of their APIs. Unknown and repeated keys are errors, and so
// is a kind that the chart should not make.
func decode(docs []string) (objects, error) {
	var o objects
	for _, doc := range docs {
		var kind meta.TypeMeta
		if err := yaml.Unmarshal([]byte(doc), &kind); err != nil {
			return o, fmt.Errorf("%w in:\n%s", err, doc)
		}
		var err error
		switch key := kind.APIVersion + " " + kind.Kind; key {
		case "apps/v1 StatefulSet":
			err = one(&o, &o.sets, doc, key)
		case "v1 Service":
			err = one(&o, &o.services, doc, key)
		case "v1 ConfigMap":
			err = one(&o, &o.configs, doc, key)
		case "v1 Secret":
			err = one(&o, &o.secrets, doc, key)
		case "v1 ServiceAccount":
			err = one(&o, &o.accounts, doc, key)
		case "policy/v1 PodDisruptionBudget":
			err = one(&o, &o.budgets, doc, key)
		case "networking.k8s.io/v1 NetworkPolicy":
			err = one(&o, &o.policies, doc, key)
		case "monitoring.coreos.com/v1 ServiceMonitor":
			err = one(&o, &o.monitors, doc, key)
		case "monitoring.coreos.com/v1 PrometheusRule":
			err = one(&o, &o.alerts, doc, key)
		default:
			err = fmt.Errorf("unexpected kind %q", key)
		}
		if err != nil {
			return o, fmt.Errorf("%w in:\n%s", err, doc)
		}
	}
	return o, nil
}

// one decodes one document and adds it to the objects of its kind.
func one[T any, P interface {
	*T
	meta.Object
}](o *objects, to *[]P, doc, kind string) error {
	v := P(new(T))
	data, err := yaml.YAMLToJSONStrict([]byte(doc))
	if err != nil {
		return err
	}
	// The decoder of the API server: unlike encoding/json it tells emptydir from emptyDir.
	strict, err := json.UnmarshalStrict(data, v)
	if err := errors.Join(append(strict, err)...); err != nil {
		return err
	}
	*to = append(*to, v)
	o.metadatas = append(o.metadatas, v)
	o.kinds = append(o.kinds, kind)
	return nil
}
