// Lets Kubernetes' own horizontal pod autoscaler decide on the cases of verify.autoscaler_cases. This file is put
// beside the controller's own, in a copy of the package: what decides is not exported. Time is synctest's.
package podautoscaler

import (
	"encoding/json"
	"os"
	"testing"
	"testing/synctest"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	defaults "k8s.io/kubernetes/pkg/apis/autoscaling/v2"
	metricsclient "k8s.io/kubernetes/pkg/controller/podautoscaler/metrics"
)

type change struct {
	Kind   string `json:"kind"`
	Value  int32  `json:"value"`
	Period int32  `json:"period"`
}

type rules struct {
	Stabilization int32    `json:"stabilization"`
	Changes       []change `json:"changes"`
	Select        string   `json:"select"`
}

type look struct {
	At       float64 `json:"at"`
	Usage    int64   `json:"usage"`
	Replicas int32   `json:"replicas"`
}

type sequence struct {
	Plain   bool   `json:"plain"`
	Up      *rules `json:"up"`
	Down    *rules `json:"down"`
	Target  int64  `json:"target"`
	Floor   int32  `json:"floor"`
	Ceiling int32  `json:"ceiling"`
	Start   int32  `json:"start"`
	Looks   []look `json:"looks"`
}

type answer struct {
	Proposals []int32 `json:"proposals"`
	Wanted    []int32 `json:"wanted"`
}

type world struct {
	metricsclient.MetricsClient
	usage int64
}

func (w *world) GetExternalMetric(string, string, labels.Selector) ([]int64, time.Time, error) {
	return []int64{w.usage}, time.Now(), nil
}

func written(one *rules) *autoscalingv2.HPAScalingRules {
	if one == nil {
		return nil
	}
	selected := autoscalingv2.ScalingPolicySelect(one.Select)
	var policies []autoscalingv2.HPAScalingPolicy
	for _, each := range one.Changes {
		kind := autoscalingv2.PodsScalingPolicy
		if each.Kind == "percent" {
			kind = autoscalingv2.PercentScalingPolicy
		}
		policies = append(policies, autoscalingv2.HPAScalingPolicy{Type: kind, Value: each.Value, PeriodSeconds: each.Period})
	}
	return &autoscalingv2.HPAScalingRules{
		StabilizationWindowSeconds: &one.Stabilization, SelectPolicy: &selected, Policies: policies,
	}
}

func decide(t *testing.T, one sequence) (found answer) {
	w := &world{}
	calculator := NewReplicaCalculator(w, nil, 0, 0)
	controller := &HorizontalController{
		downscaleStabilisationWindow: 5 * time.Minute,
		recommendations:              map[string][]timestampedRecommendation{},
		scaleUpEvents:                map[string][]timestampedScaleEvent{},
		scaleDownEvents:              map[string][]timestampedScaleEvent{},
	}
	hpa := &autoscalingv2.HorizontalPodAutoscaler{Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
		MinReplicas: &one.Floor, MaxReplicas: one.Ceiling,
	}}
	if !one.Plain {
		hpa.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: written(one.Up), ScaleDown: written(one.Down)}
		defaults.SetDefaults_HorizontalPodAutoscalerBehavior(hpa)
	}
	start := time.Now()
	current := one.Start
	controller.recordInitialRecommendation(current, "key")
	for _, now := range one.Looks {
		time.Sleep(time.Until(start.Add(time.Duration(now.At * float64(time.Second)))))
		w.usage = now.Usage
		proposal, _, _, err := calculator.GetExternalPerPodMetricReplicas(now.Replicas, one.Target, "metric",
			Tolerances{scaleDown: 0.1, scaleUp: 0.1}, "namespace", &metav1.LabelSelector{})
		if err != nil {
			t.Fatal(err)
		}
		wanted := int32(0)
		if one.Plain {
			wanted = controller.normalizeDesiredReplicas(hpa, "key", current, proposal, one.Floor)
		} else {
			wanted = controller.normalizeDesiredReplicasWithBehaviors(hpa, "key", current, proposal, one.Floor)
		}
		if wanted != current {
			controller.storeScaleEvent(hpa.Spec.Behavior, "key", current, wanted)
		}
		current = wanted
		found.Proposals = append(found.Proposals, proposal)
		found.Wanted = append(found.Wanted, wanted)
	}
	return found
}

func TestDrive(t *testing.T) {
	var cases []sequence
	raw, err := os.ReadFile(os.Getenv("CASES"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &cases); err != nil {
		t.Fatal(err)
	}
	answers := make([]answer, len(cases))
	for i, one := range cases {
		synctest.Test(t, func(t *testing.T) { answers[i] = decide(t, one) })
	}
	raw, err = json.Marshal(answers)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(os.Getenv("ANSWERS"), raw, 0o644); err != nil {
		t.Fatal(err)
	}
}
