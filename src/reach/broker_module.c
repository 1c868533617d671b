/* SPDX-License-Identifier: MIT */
/*
 * broker_module.c - the module of the broker, loaded when it is used first.
 */
#include "reach/broker_module.h"

#include <dlfcn.h>
#include <stdlib.h>

#include "base/status.h"

const rs_amqp_module *
rs_broker_module (rs_error *err)
{
  const char *path = getenv("RUNSPACE_BROKER_MODULE");
  if (path == NULL || path[0] == '\0')
    path = RS_PKGLIBDIR "/runspace-broker.so";
  void *const object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (object == NULL) {
    const char *const why = dlerror();
    rs_fail(err, RS_EFAILED, "the module for brokers cannot be loaded (%.300s)"
                             ": configure builds it where librabbitmq-dev and "
                             "libssl-dev are installed",
            why != NULL ? why : path);
    return NULL;
  }
  const rs_amqp_module *const module = dlsym(object, RS_AMQP_SYMBOL);
  if (module == NULL || module->version != RS_AMQP_VERSION) {
    rs_fail(err, RS_EFAILED, "%.200s is not the module for brokers of "
                             "runspace %s: install both anew", path,
            RS_VERSION);
    dlclose(object);
    return NULL;
  }
  return module;  /* its threads run code of the object, which stays */
}
