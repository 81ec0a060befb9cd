package node

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
)

// registry is an image registry that makes its images as they are asked for.
// Every name leads to the same program (tests/cluster/app); the tag tells the
// program how to behave, as it does with simulated pods. The protocol is that
// of the OCI distribution specification, as far as a pull needs it.
type registry struct {
	layer     []byte
	layerHash string // of the uncompressed layer, which is how it is sent

	mutex sync.Mutex
	blobs map[string][]byte // by digest, the manifests among them
}

const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar"
)

// newRegistry reads the program.
func newRegistry(path string) (*registry, error) {
	program, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, file := range []struct {
		name    string
		mode    int64
		content []byte
	}{
		{"etc/passwd", 0o644, []byte("root:x:0:0::/:/\nnobody:x:65534:65534::/:/\n")},
		{"app", 0o755, program},
	} {
		header := tar.Header{Name: file.name, Mode: file.mode, Size: int64(len(file.content)), Typeflag: tar.TypeReg}
		if err := w.WriteHeader(&header); err != nil {
			return nil, err
		}
		if _, err := w.Write(file.content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	r := &registry{layer: layer.Bytes(), blobs: map[string][]byte{}}
	r.layerHash = r.keep(r.layer)
	return r, nil
}

func (r *registry) listen() error {
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", registryPort))
	if err != nil {
		return err
	}
	go func() { _ = http.Serve(listener, r) }()
	return nil
}

// keep makes a blob available and returns its digest.
func (r *registry) keep(blob []byte) string {
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(blob))
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.blobs[digest] = blob
	return digest
}

// image makes the image of a tag and returns its manifest.
func (r *registry) image(tag string) ([]byte, error) {
	type object = map[string]any
	part := func(kind string, blob []byte) object {
		return object{"mediaType": kind, "digest": r.keep(blob), "size": len(blob)}
	}
	config, err := json.Marshal(object{
		"architecture": "amd64",
		"os":           "linux",
		"config": object{
			"Entrypoint": []string{"/app"},
			"Env":        []string{"TAG=" + tag},
			"User":       "65534:65534",
		},
		"rootfs": object{"type": "layers", "diff_ids": []string{r.layerHash}},
	})
	if err != nil {
		return nil, err
	}
	return json.Marshal(object{
		"schemaVersion": 2,
		"mediaType":     manifestType,
		"config":        part(configType, config),
		"layers":        []object{part(layerType, r.layer)},
	})
}

// ServeHTTP answers /v2/, /v2/NAME/manifests/TAG-OR-DIGEST and
// /v2/NAME/blobs/DIGEST.
func (r *registry) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	parts := strings.Split(strings.Trim(request.URL.Path, "/"), "/")
	if len(parts) < 4 {
		return // the protocol is spoken here
	}
	kind, reference := parts[len(parts)-2], parts[len(parts)-1]
	refuse := func(status int, code, message string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, code, message)
	}
	if strings.HasPrefix(reference, "sha256:") {
		r.mutex.Lock()
		blob, found := r.blobs[reference]
		r.mutex.Unlock()
		if !found {
			refuse(http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown to registry")
			return
		}
		contentType := "application/octet-stream"
		if kind == "manifests" {
			contentType = manifestType
		}
		send(w, contentType, reference, blob)
		return
	}
	switch reference {
	case "missing":
		refuse(http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
	case "denied":
		refuse(http.StatusForbidden, "DENIED", "requested access to the resource is denied")
	default:
		manifest, err := r.image(reference)
		if err != nil {
			refuse(http.StatusInternalServerError, "UNKNOWN", err.Error())
			return
		}
		send(w, manifestType, r.keep(manifest), manifest)
	}
}

func send(w http.ResponseWriter, contentType, digest string, blob []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Docker-Content-Digest", digest)
	w.Header().Set("Content-Length", fmt.Sprint(len(blob)))
	_, _ = w.Write(blob)
}
