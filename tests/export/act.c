/* Reads observations (int rows, ego, peers, mask) from a file and prints what each is decided, or "refused".
   Every array is a block of its own size, so that a read beyond it is found. */
#include "model.h"

#include <stdio.h>
#include <stdlib.h>

static void *block(FILE *file, size_t size, size_t count)
{
    void *made = malloc(size * count > 0 ? size * count : 1);
    if (made == NULL || fread(made, size, count, file) != count)
        exit(2);
    return made;
}

int main(int argc, char **argv)
{
    FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
    int rows;
    if (file == NULL)
        return 2;
    while (fread(&rows, sizeof rows, 1, file) == 1) {
        size_t used = (size_t)(rows > 0 ? rows : 0);
        float *ego = block(file, sizeof *ego, ROADSENSE_NUM_EGO);
        float *peers = block(file, sizeof *peers, used * ROADSENSE_NUM_PEER);
        signed char *mask = block(file, sizeof *mask, used);
        float action = roadsense_act(ego, used > 0 ? peers : NULL, used > 0 ? mask : NULL, rows);
        if (action == ROADSENSE_REFUSED)
            puts("refused");
        else
            printf("%.9g\n", (double)action);
        free(ego);
        free(peers);
        free(mask);
    }
    fclose(file);
    return 0;
}
