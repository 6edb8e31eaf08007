/* Which versions a program is compiled and run with. */
#include <i2psock.h>
#include <stdio.h>

int main(void) {
    printf("header %s, library %s\n", I2PSOCK_VERSION, i2psock_version());
    return 0;
}
