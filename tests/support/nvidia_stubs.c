/* Entry points that NVIDIA's Python bindings link against, so that they can be imported without NVIDIA's libraries.
   None of them is called when only the names of classes and methods are read. */

#define ABSENT(name) void *name(void) { return 0; }

ABSENT(createInferBuilder_INTERNAL)
ABSENT(createInferRefitter_INTERNAL)
ABSENT(createInferRuntime_INTERNAL)
ABSENT(createNvOnnxParser_INTERNAL)
ABSENT(createNvOnnxParserRefitter_INTERNAL)
ABSENT(getBuilderPluginRegistry)
ABSENT(getNvOnnxParserVersion)
ABSENT(getPluginRegistry)
ABSENT(initLibNvInferPlugins)

/* TensorRT 8 binds parsers of Caffe and UFF too, in C++. */
ABSENT(_ZN11nvuffparser15createUffParserEv)
ABSENT(_ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi)
ABSENT(_ZN14nvcaffeparser117createCaffeParserEv)
ABSENT(_ZN14nvcaffeparser123shutdownProtobufLibraryEv)
