// Command quern-worker runs job kinds that are too heavy for Python threads.
//
// It speaks the same database protocol as the Python dispatcher (claim, heartbeat, finish) and
// can serve the same queue side by side with it. Each job runs as a child process, so a
// handler that overruns can really be killed, which the Python node cannot do.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// Job mirrors the columns that the worker needs.
type Job struct {
	ID      string          `json:"id"`
	Queue   string          `json:"queue"`
	Kind    string          `json:"kind"`
	Payload json.RawMessage `json:"payload"`
	Fence   int64           `json:"fence"`
	Timeout time.Duration   `json:"-"`
}

// Outcome is what is reported after a run.
type Outcome int

const (
	Succeeded Outcome = iota
	FailedRetry
	FailedForever
)

// exitPermanent is the status by which a child says that another attempt is pointless.
const exitPermanent = 65

// killDelay is the time between SIGTERM and SIGKILL for a child that overran.
const killDelay = 7 * time.Second

func main() {
	queues := flag.String("queues", "", "comma-separated queue names")
	handlers := flag.String("handlers", "/usr/lib/quern/handlers.d", "folder with one executable for each kind")
	slots := flag.Int("slots", 4, "children at a time")
	flag.Parse()
	if *queues == "" {
		slog.Error("no queues given")
		os.Exit(64)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()

	store, err := openStore(ctx, os.Getenv("QUERN__STORAGE__DSN"))
	if err != nil {
		slog.Error("cannot reach the database", "err", err)
		os.Exit(69)
	}
	keeper := NewHeartbeat(store, 90*time.Second)
	go keeper.Run(ctx)

	free := make(chan struct{}, *slots)
	for ctx.Err() == nil {
		free <- struct{}{}
		job, err := store.Claim(ctx, strings.Split(*queues, ","))
		if err != nil || job == nil {
			<-free
			time.Sleep(750 * time.Millisecond)
			continue
		}
		go func() {
			defer func() { <-free }()
			runCtx, lost := keeper.Hold(ctx, job)
			defer keeper.Release(job.ID)
			outcome, detail := runChild(runCtx, *handlers, job)
			if lost() {
				slog.Warn("result discarded", "code", "QRN-3002", "job", job.ID)
				return
			}
			if err := store.Finish(context.WithoutCancel(ctx), job, outcome, detail); err != nil {
				slog.Error("cannot report", "job", job.ID, "err", err)
			}
		}()
	}
}

// runChild passes the payload on standard input and keeps the last 2000 bytes of standard error.
func runChild(ctx context.Context, folder string, job *Job) (Outcome, string) {
	ctx, cancel := context.WithTimeout(ctx, job.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, folder+"/"+job.Kind)
	cmd.Stdin = strings.NewReader(string(job.Payload))
	cmd.Env = append(os.Environ(), "QUERN_JOB_ID="+job.ID)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = killDelay
	tail := &tailBuffer{limit: 2000}
	cmd.Stderr = tail

	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return Succeeded, ""
	case errors.As(err, &exit) && exit.ExitCode() == exitPermanent:
		return FailedForever, tail.String()
	default:
		return FailedRetry, tail.String()
	}
}
