package node

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// scrapeAnnotation is what a pod's template carries to be asked for metrics.
const scrapeAnnotation = "prometheus.io/scrape"

// target is one address that Prometheus asks, in the form of its HTTP service
// discovery. Debian's Prometheus cannot ask the API server itself.
type target struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// listenForTargets answers Prometheus with the pods that want to be asked:
// once for each Service that they are behind, with the labels that the
// Prometheus operator gives.
func (a api) listenForTargets() error {
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", targetsPort))
	if err != nil {
		return err
	}
	go func() {
		_ = http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			found, err := a.targets(r.Context())
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(found)
		}))
	}()
	return nil
}

func (a api) targets(ctx context.Context) ([]target, error) {
	// From the API server's cache, which is cheap and at most moments old.
	cached := metav1.ListOptions{ResourceVersion: "0"}
	pods, err := a.client.CoreV1().Pods("").List(ctx, cached)
	if err != nil {
		return nil, err
	}
	willing := map[[2]string]bool{}
	for _, pod := range pods.Items {
		if pod.Annotations[scrapeAnnotation] == "true" {
			willing[[2]string{pod.Namespace, pod.Name}] = true
		}
	}
	slices, err := a.client.DiscoveryV1().EndpointSlices("").List(ctx, cached)
	if err != nil {
		return nil, err
	}
	found := []target{}
	for _, slice := range slices.Items {
		for _, endpoint := range slice.Endpoints {
			if pod := endpoint.TargetRef; pod != nil && willing[[2]string{pod.Namespace, pod.Name}] {
				found = append(found, asked(slice, endpoint, pod)...)
			}
		}
	}
	return found, nil
}

// asked are the addresses of one pod behind one Service.
func asked(slice discoveryv1.EndpointSlice, endpoint discoveryv1.Endpoint, pod *corev1.ObjectReference) []target {
	var found []target
	for _, port := range slice.Ports {
		if port.Port == nil || len(endpoint.Addresses) == 0 {
			continue
		}
		found = append(found, target{
			Targets: []string{fmt.Sprintf("%s:%d", endpoint.Addresses[0], *port.Port)},
			Labels: map[string]string{
				"namespace": slice.Namespace,
				"service":   slice.Labels[discoveryv1.LabelServiceName],
				"pod":       pod.Name,
			},
		})
	}
	return found
}
