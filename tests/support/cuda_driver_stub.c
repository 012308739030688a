/* A CUDA driver that lists two GPUs and counts contexts. EDGE_AD_STUB_CUDA_ERROR=N makes cuInit fail with N. */

#include <stdlib.h>
#include <string.h>

static const char *const names[] = {"Orin", "NVIDIA GeForce RTX 3060"};
static const int capability[][2] = {{8, 7}, {8, 6}};
static int retained, pushed;

int cuInit(unsigned flags) {
    const char *error = getenv("EDGE_AD_STUB_CUDA_ERROR");
    return error ? atoi(error) : 0;
}
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGet(int *device, int index) {
    if (index < 0 || index > 1) return 101;
    *device = 10 + index; /* a handle is no index */
    return 0;
}
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, names[device - 10], size); return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    if (attribute != 75 && attribute != 76) return 1;
    *value = capability[device - 10][attribute - 75];
    return 0;
}
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)(size_t)device; retained++; return 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { retained--; return 0; }
int cuCtxPushCurrent_v2(void *context) {
    if (context != (void *)10 && context != (void *)11) return 201; /* a cut pointer would not be one */
    pushed++;
    return 0;
}
int cuCtxPopCurrent_v2(void **context) { *context = (void *)0; pushed--; return 0; }
int stub_retained(void) { return retained; }
int stub_pushed(void) { return pushed; }
