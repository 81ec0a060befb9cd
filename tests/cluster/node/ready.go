package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// api asks the API server what must be known before a node is called ready.
type api struct {
	client *kubernetes.Clientset
}

func newAPI() (api, error) {
	config, err := clientcmd.BuildConfigFromFlags("", inCluster("kubeconfig"))
	if err != nil {
		return api{}, err
	}
	config.QPS, config.Burst = -1, 0 // no limit
	config.UserAgent = "testcluster"
	client, err := kubernetes.NewForConfig(config)
	return api{client}, err
}

// nodeReady: ready, and rid of the taints that keep pods away.
func (a api) nodeReady(ctx context.Context) error {
	node, err := a.client.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if len(node.Spec.Taints) > 0 {
		return fmt.Errorf("it is tainted %v", node.Spec.Taints)
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			if condition.Status == corev1.ConditionTrue {
				return nil
			}
			return errors.New(condition.Message)
		}
	}
	return errors.New("it says nothing of itself")
}

// definitionsServed: the resources of every definition are found by a client
// that asks what there is.
func (a api) definitionsServed(ctx context.Context) error {
	text, err := a.client.RESTClient().Get().AbsPath("/apis/apiextensions.k8s.io/v1/customresourcedefinitions").DoRaw(ctx)
	if err != nil {
		return err
	}
	var definitions struct {
		Items []struct {
			Spec struct {
				Group    string                  `json:"group"`
				Names    struct{ Plural string } `json:"names"`
				Versions []struct {
					Name   string
					Served bool
				} `json:"versions"`
			} `json:"spec"`
		} `json:"items"`
	}
	if err := json.Unmarshal(text, &definitions); err != nil {
		return err
	}
	_, lists, err := a.client.Discovery().ServerGroupsAndResources()
	if err != nil {
		return err
	}
	served := map[string]bool{}
	for _, list := range lists {
		for _, resource := range list.APIResources {
			served[list.GroupVersion+"/"+resource.Name] = true
		}
	}
	for _, d := range definitions.Items {
		for _, version := range d.Spec.Versions {
			name := d.Spec.Group + "/" + version.Name + "/" + d.Spec.Names.Plural
			if version.Served && !served[name] {
				return fmt.Errorf("%s is not served yet", name)
			}
		}
	}
	return nil
}

// gatewayAccepted: Contour has looked at the Gateway that is there and
// accepted it.
func (a api) gatewayAccepted(ctx context.Context) error {
	text, err := a.client.RESTClient().Get().
		AbsPath("/apis/gateway.networking.k8s.io/v1/namespaces", gatewayNamespace, "gateways", gatewayName).DoRaw(ctx)
	if err != nil {
		return err
	}
	return conditionTrue(text, "Accepted")
}

// metricsServed: the API server has asked metrics-server, and passes requests
// on to it.
func (a api) metricsServed(ctx context.Context) error {
	text, err := a.client.RESTClient().Get().AbsPath("/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io").DoRaw(ctx)
	if err != nil {
		return err
	}
	return conditionTrue(text, "Available")
}

// answers asks an address for a status of 200.
func answers(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answers %s", url, response.Status)
		}
		return nil
	}
}

// listens tries a socket or a port.
func listens(network, address string) func(context.Context) error {
	return func(ctx context.Context) error {
		connection, err := new(net.Dialer).DialContext(ctx, network, address)
		if err == nil {
			connection.Close()
		}
		return err
	}
}

// conditionTrue reads a condition of an object whose type is not known here.
func conditionTrue(object []byte, kind string) error {
	var o struct {
		Status struct {
			Conditions []metav1.Condition `json:"conditions"`
		} `json:"status"`
	}
	if err := json.Unmarshal(object, &o); err != nil {
		return err
	}
	for _, c := range o.Status.Conditions {
		if c.Type == kind && c.Status == metav1.ConditionTrue {
			return nil
		}
	}
	return fmt.Errorf("not %s: %v", kind, o.Status.Conditions)
}
