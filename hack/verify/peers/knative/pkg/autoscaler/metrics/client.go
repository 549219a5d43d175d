// Package metrics stands in for the package of this name: where the autoscaler asks for its metrics.
package metrics

import (
	"errors"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

var ErrNoData = errors.New("no data")

type MetricClient interface {
	StableAndPanicConcurrency(key types.NamespacedName, now time.Time) (float64, float64, error)
	StableAndPanicRPS(key types.NamespacedName, now time.Time) (float64, float64, error)
}
