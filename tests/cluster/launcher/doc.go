// Package launcher starts and stops control planes. It runs the components as
// further processes of the very file it is part of, and knows of them only
// their command lines.
//
// Its functions must be called from a main goroutine that is locked to the
// process's first thread: the kernel sends a child's parent-death signal when
// the thread that started it ends.
package launcher
