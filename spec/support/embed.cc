// SPDX-License-Identifier: MIT
//
// embed.cc - a program in C++ that includes the headers as they are.

#include <lparallel.h>
#include <runspace.h>

#include <iostream>

int
main ()
{
  lua_State *const L = rs_host_open();
  rs_host_open_libs(L);
  lua_pushcfunction(L, luaopen_parallel);
  lua_call(L, 0, 1);
  const bool module = lua_istable(L, -1);
  lua_settop(L, 0);

  rs_pool *pool = nullptr;
  rs_job *job = nullptr;
  rs_error err{};
  rs_pool_options options{};
  options.size = sizeof options;
  options.max = 1;
  if (rs_pool_open(&options, &pool, &err) != RS_OK) {
    std::cout << err.text << "\n";
    return 1;
  }
  rs_job_options named{};
  named.name = "square";
  lua_pushliteral(L, "local x = ... return x * x");
  lua_pushinteger(L, 12);
  if (rs_submit(pool, L, 1, &named, &job, &err) != RS_OK) {
    std::cout << err.text << "\n";
    return 1;
  }
  int n = 0;
  rs_job_wait(job, L, RS_FOREVER);
  rs_job_push(job, L, &n);
  rs_job_info info{};
  rs_job_info_get(job, &info);
  std::cout << rs_job_name(job) << " " << rs_job_state_name(info.state) << " "
            << n << " " << lua_tointeger(L, -1) << " "
            << (module ? "module" : "no module") << "\n";
  rs_job_unref(job);
  rs_pool_unref(pool);
  rs_host_close(L);
}
