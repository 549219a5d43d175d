// Package scaling: the declarations that autoscaler.go expects beside it. autoscaler.go and metrics.go, and the
// package of time windows, are copied in from the module's release before the build; they are not part of this
// repository.
package scaling

import (
	"time"

	"go.uber.org/zap"
)

const tickInterval = 2 * time.Second

type DeciderSpec struct {
	MaxScaleUpRate      float64
	MaxScaleDownRate    float64
	ScalingMetric       string
	TargetValue         float64
	TotalValue          float64
	TargetBurstCapacity float64
	PanicThreshold      float64
	StableWindow        time.Duration
	ScaleDownDelay      time.Duration
	Reachable           bool
	ActivationScale     int32
}

type ScaleResult struct {
	DesiredPodCount     int32
	ExcessBurstCapacity int32
	ScaleValid          bool
}

var invalidSR = ScaleResult{}

type UniScaler interface {
	Scale(logger *zap.SugaredLogger, now time.Time) ScaleResult
	Update(spec *DeciderSpec)
}
