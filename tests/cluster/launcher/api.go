package launcher

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// api asks the API server what the launcher must know before it calls a
// cluster ready.
type api struct {
	client *kubernetes.Clientset
}

func newAPI(kubeconfig string) (api, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return api{}, err
	}
	config.QPS, config.Burst = -1, 0 // no limit
	config.UserAgent = "testcluster"
	client, err := kubernetes.NewForConfig(config)
	return api{client}, err
}

func (a api) ready(ctx context.Context) error {
	return a.client.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
}

// defaultAccount: until the service account exists, no pod is admitted.
func (a api) defaultAccount(ctx context.Context) error {
	_, err := a.client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
	return err
}

// healthz asks a component on its own port. Its certificate is self-signed and
// nothing secret is sent, so it is not checked; that the port is the
// component's is sure, because the launcher holds it.
func healthz(port int) func(context.Context) error {
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		DisableKeepAlives: true,
	}}
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("https://127.0.0.1:%d/healthz", port), nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			return err
		}
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("healthz answers %s: %s", response.Status, body)
		}
		return nil
	}
}
