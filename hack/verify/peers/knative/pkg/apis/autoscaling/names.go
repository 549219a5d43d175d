// Package autoscaling stands in for the package of this name, of which the autoscaler needs two words.
package autoscaling

const (
	Concurrency = "concurrency"
	RPS         = "rps"
)
