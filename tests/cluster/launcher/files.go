package launcher

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"windlass.test/cluster/stages"
)

// files are the paths of what a cluster keeps in its directory.
type files struct {
	dir          string
	kubeconfig   string // for the user: administrator's rights
	pids         string // what was started; its presence marks a directory as a cluster's
	auditLog     string
	auditPolicy  string
	tokens       string
	stages       string
	pki          string // directory of the files below
	caCert       string
	caKey        string
	servingCert  string
	servingKey   string
	accountKey   string
	proxyCACert  string // of those that may ask for others
	proxyCert    string // the API server's own towards aggregated APIs
	proxyKey     string
	componentDir string // kubeconfigs of the components
}

func filesIn(dir string) files {
	in := func(name string) string { return filepath.Join(dir, name) }
	return files{
		dir:          dir,
		kubeconfig:   in("kubeconfig"),
		pids:         in("pids.json"),
		auditLog:     in("audit.log"),
		auditPolicy:  in("audit-policy.yaml"),
		tokens:       in("tokens.csv"),
		stages:       in("stages.yaml"),
		pki:          in("pki"),
		caCert:       in("pki/ca.crt"),
		caKey:        in("pki/ca.key"),
		servingCert:  in("pki/apiserver.crt"),
		servingKey:   in("pki/apiserver.key"),
		accountKey:   in("pki/service-account.key"),
		proxyCACert:  in("pki/front-proxy-ca.crt"),
		proxyCert:    in("pki/front-proxy-client.crt"),
		proxyKey:     in("pki/front-proxy-client.key"),
		componentDir: in("components"),
	}
}

// componentKubeconfig is the kubeconfig that a component connects with.
func (f files) componentKubeconfig(user string) string {
	return filepath.Join(f.componentDir, user+".kubeconfig")
}

// remove deletes exactly what a cluster writes, and the directory itself when
// nothing else is left in it.
func (f files) remove() error {
	paths := []string{f.kubeconfig, f.auditPolicy, f.tokens, f.stages, f.pki, f.componentDir, f.pids}
	logs, err := filepath.Glob(filepath.Join(f.dir, "*.log"))
	if err != nil {
		return err
	}
	for _, path := range logs {
		if isOwnLog(filepath.Base(path)) {
			paths = append(paths, path)
		}
	}
	for _, path := range paths {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	_ = os.Remove(f.dir) // refused when the user keeps something else there, rightly
	return nil
}

// users of the token file. All are in system:masters: the components run
// without roles of their own, but under their usual names, so that the audit
// log tells them apart.
var users = map[string]string{
	"admin":              "admin",
	"controller-manager": "system:kube-controller-manager",
	"scheduler":          "system:kube-scheduler",
	"kwok":               "system:node-simulator",
}

// auditPolicyText records every request once, when it is over. A watch is over
// when it ends, so its start is recorded as well (ResponseStarted).
const auditPolicyText = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
`

// write creates everything the components read at their start.
func (f files) write(apiPort int, o options) error {
	for _, dir := range []string{f.dir, f.pki, f.componentDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := writePKI(f, o); err != nil {
		return err
	}
	tokens := ""
	for short, name := range users {
		token := rand.Text()
		tokens += fmt.Sprintf("%s,%s,%s,system:masters\n", token, name, short)
		path := f.componentKubeconfig(short)
		if short == "admin" {
			path = f.kubeconfig
		}
		if err := f.writeKubeconfig(path, fmt.Sprintf("https://%s:%d", o.address, apiPort), short, token); err != nil {
			return err
		}
	}
	text, err := stages.Config()
	if err != nil {
		return err
	}
	for path, content := range map[string]string{f.tokens: tokens, f.auditPolicy: auditPolicyText, f.stages: text} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// writeKubeconfig writes a kubeconfig with the authority inside, so that the
// file can be copied elsewhere and still works.
func (f files) writeKubeconfig(path, server, user, token string) error {
	ca, err := os.ReadFile(f.caCert)
	if err != nil {
		return err
	}
	type object = map[string]any
	// JSON is YAML, and its encoder is at hand.
	text, err := json.MarshalIndent(object{
		"apiVersion": "v1",
		"kind":       "Config",
		"clusters": []object{{"name": "testcluster", "cluster": object{
			"server":                     server,
			"certificate-authority-data": ca,
		}}},
		"users":           []object{{"name": user, "user": object{"token": token}}},
		"contexts":        []object{{"name": "testcluster", "context": object{"cluster": "testcluster", "user": user}}},
		"current-context": "testcluster",
	}, "", "  ")
	if err != nil {
		return err
	}
	return writeWhole(path, append(text, '\n'))
}

// writeWhole writes a file in one step, so that a reader never sees half of it.
func writeWhole(path string, text []byte) error {
	next := path + ".new"
	if err := os.WriteFile(next, text, 0o600); err != nil {
		return err
	}
	return os.Rename(next, path)
}

// record is the content of pids.json.
type record struct {
	Processes []*process `json:"processes"`
	// Scratch is the directory of etcd's data and sockets.
	Scratch string `json:"scratch"`
}

func (f files) writeRecord(r record) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return writeWhole(f.pids, append(text, '\n'))
}

// readRecord returns an empty record when the directory holds no cluster.
func (f files) readRecord() (record, error) {
	var r record
	text, err := os.ReadFile(f.pids)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("%s: %w", f.pids, err)
	}
	return r, nil
}
