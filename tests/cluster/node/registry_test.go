package node

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// pull asks for a path of a registry and returns the status and the answer.
func pull(t *testing.T, server *httptest.Server, path string) (int, []byte) {
	t.Helper()
	response, err := http.Get(server.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, body
}

func TestEveryNameLeadsToTheProgramAndTheTagIsToldToIt(t *testing.T) {
	program := filepath.Join(t.TempDir(), "app")
	if err := os.WriteFile(program, []byte("the program"), 0o755); err != nil {
		t.Fatal(err)
	}
	r, err := newRegistry(program)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(r)
	defer server.Close()

	var manifest struct {
		Config struct{ Digest string }
		Layers []struct{ Digest string }
	}
	for _, name := range []string{"app", "library/nginx", "a/b/c"} {
		status, body := pull(t, server, "/v2/"+name+"/manifests/v1")
		if status != http.StatusOK {
			t.Fatalf("%s: %d %s", name, status, body)
		}
		if err := json.Unmarshal(body, &manifest); err != nil {
			t.Fatal(err)
		}
		if _, config := pull(t, server, "/v2/"+name+"/blobs/"+manifest.Config.Digest); !strings.Contains(string(config), "TAG=v1") {
			t.Errorf("%s: %s", name, config)
		}
		if _, layer := pull(t, server, "/v2/"+name+"/blobs/"+manifest.Layers[0].Digest); !strings.Contains(string(layer), "the program") {
			t.Errorf("%s: the layer lacks the program", name)
		}
	}
	for tag, wanted := range map[string]int{"missing": http.StatusNotFound, "denied": http.StatusForbidden} {
		if status, body := pull(t, server, "/v2/app/manifests/"+tag); status != wanted {
			t.Errorf("%s: %d %s", tag, status, body)
		}
	}
}
