// Command app is what runs in the pods of a real node: an HTTP and gRPC server
// that can be told to be a bad release.
//
// Settings come from the environment, or from the file that the variable
// SETTINGS names (lines of NAME=VALUE, such as a key of a ConfigMap), which is
// read again before each answer to a request and wins:
//
//	ERROR_SHARE  the share of requests that fail with 500: 0.25
//	LATENCY      how long an answer takes: 300ms
//	CRASH_AFTER  the process ends with exit code 1 so long after its start
//	EXIT_AFTER   the process ends well so long after its start, as a task does
//	LEAK         memory that is taken each second and never given back, in MiB
//	BURN         processor time that is used all the while, in cores: 0.2
//	READY_AFTER  /readyz says no for so long
//	LINGER       how long it serves on after SIGTERM: 2s unless told
//	VERSION      what it says of itself; the image's tag unless told
//	PORT         8080 unless told
//
// A request to /settings sets them for the process that it comes to, whose
// name stands in its answer, and wins over all: /settings?LATENCY=300ms, for
// good, or with for=10s for a time.
//
// An image's tag sets some of them, as it does for simulated pods (see
// behaviours). Every answer names the version and the pod in the headers
// X-Version and X-Pod. /readyz and /healthz are for probes and always quick;
// /metrics is for Prometheus.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// behaviours of tags, in the words of the settings. Any other tag is a good
// release.
var behaviours = map[string]map[string]string{
	"slow":    {"READY_AFTER": "3s"},
	"unready": {"READY_AFTER": "1000h"},
	"crash":   {"CRASH_AFTER": "300ms", "READY_AFTER": "1000h"},
	"fail":    {"CRASH_AFTER": "300ms", "READY_AFTER": "1000h"},
	"flaky":   {"CRASH_AFTER": "4s"},
	"errors":  {"ERROR_SHARE": "0.5"},
	"late":    {"LATENCY": "500ms"},
	"leak":    {"LEAK": "16"},
	"task":    {"EXIT_AFTER": "500ms"},
}

// asked are the settings that requests have made.
var asked = struct {
	sync.Mutex
	values map[string]string
	until  time.Time
}{values: map[string]string{}}

// ask takes settings from a request. It answers a problem.
func ask(query url.Values) error {
	asked.Lock()
	defer asked.Unlock()
	asked.until = time.Time{}
	for name, values := range query {
		if name != "for" {
			asked.values[name] = values[0]
			continue
		}
		end, err := within(values[0])
		if err != nil {
			return err
		}
		asked.until = end
	}
	return nil
}

func within(text string) (time.Time, error) {
	d, err := time.ParseDuration(text)
	return time.Now().Add(d), err
}

// wanted is what a request has set.
func wanted(name string) (string, bool) {
	asked.Lock()
	defer asked.Unlock()
	if !asked.until.IsZero() && time.Now().After(asked.until) {
		return "", false
	}
	value, found := asked.values[name]
	return value, found
}

// setting looks a setting up: in what a request has set, in the file, in the
// environment, by the tag.
func setting(name, otherwise string) string {
	if value, found := wanted(name); found {
		return value
	}
	if file, err := os.Open(os.Getenv("SETTINGS")); err == nil {
		defer file.Close()
		for lines := bufio.NewScanner(file); lines.Scan(); {
			if key, value, _ := strings.Cut(lines.Text(), "="); strings.TrimSpace(key) == name {
				return strings.TrimSpace(value)
			}
		}
	}
	if value, found := os.LookupEnv(name); found {
		return value
	}
	if value, found := behaviours[os.Getenv("TAG")][name]; found {
		return value
	}
	return otherwise
}

// version is what this process says it is.
func version() string { return setting("VERSION", os.Getenv("TAG")) }

func duration(name, otherwise string) time.Duration {
	d, err := time.ParseDuration(setting(name, otherwise))
	if err != nil {
		log.Fatalf("%s: %v", name, err)
	}
	return d
}

func number(name, otherwise string) float64 {
	n, err := strconv.ParseFloat(setting(name, otherwise), 64)
	if err != nil {
		log.Fatalf("%s: %v", name, err)
	}
	return n
}

func main() {
	if os.Getenv("TAG") == "pause" {
		pause()
	}
	began := time.Now()
	if after := duration("CRASH_AFTER", "0s"); after > 0 {
		time.AfterFunc(after, func() {
			log.Print("crashing, as told")
			os.Exit(1)
		})
	}
	if after := duration("EXIT_AFTER", "0s"); after > 0 {
		time.AfterFunc(after, func() { os.Exit(0) })
	}
	if leak := number("LEAK", "0"); leak > 0 {
		go leakMemory(leak)
	}
	go burn()
	pod, _ := os.Hostname()
	counted := newMetrics()
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if time.Since(began) < duration("READY_AFTER", "0s") {
			http.Error(w, "not yet", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("/metrics", counted.serve)
	mux.HandleFunc("/settings", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Pod", pod)
		if err := ask(r.URL.Query()); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		w.Header().Set("X-Version", version())
		w.Header().Set("X-Pod", pod)
		time.Sleep(duration("LATENCY", "0s"))
		status := http.StatusOK
		if rand.Float64() < number("ERROR_SHARE", "0") {
			status = http.StatusInternalServerError
		}
		if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			answerGRPC(w, status)
		} else {
			w.WriteHeader(status)
			fmt.Fprintf(w, "%s %s\n", version(), pod)
		}
		counted.count(r.Method, status, time.Since(start))
	})
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Addr: ":" + setting("PORT", "8080"), Handler: mux, Protocols: protocols}
	go func() {
		told := make(chan os.Signal, 1)
		signal.Notify(told, syscall.SIGTERM, syscall.SIGINT)
		<-told
		// Those who send requests learn a moment later that this pod goes.
		time.Sleep(duration("LINGER", "2s"))
		os.Exit(0)
	}()
	log.Printf("version %s listens at %s", version(), server.Addr)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}

// answerGRPC answers any call with one empty message, or with an error. In
// gRPC the status stands in the trailers; 13 is INTERNAL.
func answerGRPC(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status")
	w.WriteHeader(http.StatusOK)
	if status == http.StatusOK {
		_, _ = w.Write(make([]byte, 5)) // not compressed, of length 0
		w.Header().Set("Grpc-Status", "0")
	} else {
		w.Header().Set("Grpc-Status", "13")
	}
}

// leakMemory takes MiB each second, and writes to them so that they count.
func leakMemory(mebibytes float64) {
	var kept [][]byte
	for range time.Tick(100 * time.Millisecond) {
		piece := make([]byte, int(mebibytes*(1<<20)/10))
		for i := 0; i < len(piece); i += 4096 {
			piece[i] = 1
		}
		kept = append(kept, piece)
	}
}

// burn uses as much processor time as BURN says, a piece in each tenth of a
// second. What counts is the time that it got: beside others at work it spins
// for longer.
func burn() {
	runtime.LockOSThread() // its time is that of a thread
	var owed time.Duration
	last := time.Now()
	for now := range time.Tick(100 * time.Millisecond) {
		owed = owing(owed, now.Sub(last), number("BURN", "0"))
		last = now
		began := usedByThread()
		for owed > usedByThread()-began {
		}
		owed -= usedByThread() - began
	}
}

// owing is the processor time that is still to be used, after so much time at
// a share of a core. On a machine that has none to give it stays at a second.
func owing(before, passed time.Duration, share float64) time.Duration {
	if share <= 0 {
		return 0
	}
	return min(before+time.Duration(share*float64(passed)), time.Second)
}

// usedByThread is the processor time that this thread has had.
func usedByThread() time.Duration {
	const thread = 1 // RUSAGE_THREAD, which package syscall has no name for
	var usage syscall.Rusage
	if err := syscall.Getrusage(thread, &usage); err != nil {
		log.Fatalf("BURN: %v", err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// pause is the first process of every pod: it holds the pod's namespaces.
func pause() {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM, syscall.SIGINT)
	<-told
	os.Exit(0)
}
