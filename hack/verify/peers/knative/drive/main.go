// Command knative lets Knative's own autoscaler decide on the cases of verify.autoscaler_cases: JSON in, JSON out.
package main

import (
	"encoding/json"
	"os"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric/noop"
	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/types"
	"knative.dev/serving/pkg/autoscaler/scaling"
)

type settings struct {
	Concurrency    float64 `json:"concurrency"`
	StableWindow   float64 `json:"stable_window"`
	PanicThreshold float64 `json:"panic_threshold"`
	MaxUp          float64 `json:"max_up"`
	MaxDown        float64 `json:"max_down"`
}

type look struct {
	At     float64 `json:"at"`
	Stable float64 `json:"stable"`
	Panic  float64 `json:"panic"`
	Ready  int     `json:"ready"`
}

type sequence struct {
	Settings settings `json:"settings"`
	Ready    int      `json:"ready"`
	Looks    []look   `json:"looks"`
}

// world is what the autoscaler asks: the metrics of both windows and the ready pods.
type world struct{ now look }

func (w *world) StableAndPanicConcurrency(types.NamespacedName, time.Time) (float64, float64, error) {
	return w.now.Stable, w.now.Panic, nil
}

func (w *world) StableAndPanicRPS(types.NamespacedName, time.Time) (float64, float64, error) {
	return w.now.Stable, w.now.Panic, nil
}

func (w *world) ReadyCount() (int, error)    { return w.now.Ready, nil }
func (w *world) NotReadyCount() (int, error) { return 0, nil }

func decide(one sequence) []int32 {
	w := &world{now: look{Ready: one.Ready}}
	start := time.Now()
	autoscaler := scaling.New(*attribute.EmptySet(), noop.NewMeterProvider(), "namespace", "revision", w, w,
		&scaling.DeciderSpec{
			ScalingMetric:  "concurrency",
			TargetValue:    one.Settings.Concurrency,
			TotalValue:     one.Settings.Concurrency,
			StableWindow:   time.Duration(one.Settings.StableWindow * float64(time.Second)),
			PanicThreshold: one.Settings.PanicThreshold,
			MaxScaleUpRate: one.Settings.MaxUp, MaxScaleDownRate: one.Settings.MaxDown,
			Reachable: true, ActivationScale: 1,
		})
	var wanted []int32
	for _, now := range one.Looks {
		w.now = now
		at := start.Add(time.Duration(now.At * float64(time.Second)))
		wanted = append(wanted, autoscaler.Scale(zap.NewNop().Sugar(), at).DesiredPodCount)
	}
	return wanted
}

func main() {
	var cases []sequence
	if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil {
		panic(err)
	}
	var answers [][]int32
	for _, one := range cases {
		answers = append(answers, decide(one))
	}
	if err := json.NewEncoder(os.Stdout).Encode(answers); err != nil {
		panic(err)
	}
}
