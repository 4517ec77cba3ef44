shmem:fragments and pkmem:0-fragments are the free pieces of the heap.
