package launcher

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// scratchPrefix begins the names of the scratch directories.
const scratchPrefix = "testcluster-"

// scratchNeeded is the free memory that /dev/shm must have to be used: a large
// test writes some hundred MB.
const scratchNeeded = 1 << 30

// scratch is the directory of etcd's data and sockets. It lies in memory when
// possible, since etcd's latency is that of its disk, and always under a short
// path, since a socket's path is limited to some hundred characters.
type scratch struct {
	dir string
	// lock is held open by the launcher and by etcd. While either lives,
	// nobody else gets the lock, so whoever does may remove the directory:
	// this is how the remains of a cluster killed the hard way are found.
	lock *os.File
}

func newScratch() (scratch, error) {
	root := os.TempDir()
	var stat unix.Statfs_t
	if err := unix.Statfs("/dev/shm", &stat); err == nil && stat.Bavail*uint64(stat.Bsize) >= scratchNeeded {
		root = "/dev/shm"
	}
	sweepScratch("/dev/shm")
	sweepScratch(os.TempDir())
	dir, err := os.MkdirTemp(root, scratchPrefix)
	if err != nil {
		return scratch{}, fmt.Errorf("make the data directory: %w", err)
	}
	lock, err := os.Create(filepath.Join(dir, "lock"))
	if err != nil {
		return scratch{}, err
	}
	return scratch{dir, lock}, unix.Flock(int(lock.Fd()), unix.LOCK_EX)
}

// sweepScratch removes directories of clusters that no longer live.
func sweepScratch(root string) {
	locks, _ := filepath.Glob(filepath.Join(root, scratchPrefix+"*", "lock"))
	for _, path := range locks {
		info, err := os.Stat(path)
		// A young one may be about to be locked.
		if err != nil || time.Since(info.ModTime()) < time.Minute {
			continue
		}
		file, err := os.Open(path)
		if err != nil {
			continue // somebody else's
		}
		if unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = os.RemoveAll(filepath.Dir(path))
		}
		file.Close()
	}
}
