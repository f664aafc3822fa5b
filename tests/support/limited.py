"""The command line in a process whose files may not grow beyond a size, as on a disk that is full."""

import resource
import sys

if __name__ == "__main__":
    size = int(sys.argv.pop(1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    from divcon.cli import main

    main()
