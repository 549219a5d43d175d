module keda

go 1.26.0

// For its CustomResourceDefinition and the table of its triggers' parameters alone: nothing is compiled, and `go mod
// tidy` would drop it.
require github.com/kedacore/keda/v2 v2.21.0
