module dra

go 1.26.0

// For the CustomResourceDefinitions in its chart alone: nothing is compiled, and `go mod tidy` would drop it.
require sigs.k8s.io/dra-driver-nvidia-gpu v0.5.0
