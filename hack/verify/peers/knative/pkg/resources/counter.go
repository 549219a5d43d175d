// Package resources stands in for the package of this name: where the autoscaler counts pods.
package resources

type EndpointsCounter interface {
	ReadyCount() (int, error)
	NotReadyCount() (int, error)
}
