/* Test vectors taken over from ../vectors (all keys are public). */
#ifndef VECTORS_H
#define VECTORS_H

#define DEST_A \
    "dPu45WnZodKffMFs8f~pO9vdGDZYvx8UTEJ8rZ5Ezmp0-7jladmh0p98wWzx~-k7290YNli~HxRMQnytnkTOanT7uOVp2aHSn3zB" \
    "bPH~6Tvb3Rg2WL8fFExCfK2eRM5qdPu45WnZodKffMFs8f~pO9vdGDZYvx8UTEJ8rZ5Ezmp0-7jladmh0p98wWzx~-k7290YNli~" \
    "HxRMQnytnkTOanT7uOVp2aHSn3zBbPH~6Tvb3Rg2WL8fFExCfK2eRM5qdPu45WnZodKffMFs8f~pO9vdGDZYvx8UTEJ8rZ5Ezmp0" \
    "-7jladmh0p98wWzx~-k7290YNli~HxRMQnytnkTOanT7uOVp2aHSn3zBbPH~6Tvb3Rg2WL8fFExCfK2eRM5qdPu45WnZodKffMFs" \
    "8f~pO9vdGDZYvx8UTEJ8rZ5Ezmp0-7jladmh0p98wWzx~-k7290YNli~HxRMQnytnkTOamf0UrGG6NPrKIetudADKM2vYsADa0KD" \
    "v-DkcgX~iuXVBQAEAAcAAA=="
#define HOST_A \
    "ql7q5wm6qgh5fbbkcjfyegod6ngo6vikto6fvczcdmoudehvciua.b32.i2p"
#define HASH_A \
    "82ff0ed99e818fd2842a124b8219c3f34cef550a9bbc5a8b221b1d4190f51228"
#define DEST_B \
    "kGyG~K1sZKm36rRVPHXtwhezrE7UVbQh8habGfYMwD41XkJqi8tClhH2~vr7apvu4WBMbSKSdLnuh~04K3Rf150Wqto57HIdKaXy" \
    "Q4T1RxrtFgjF4daIdbpRhV87tITGLIpWawrM1it6yzbZnsvIE45JFgs1oJeR3KhbCYpMhY3Tg~Vuh2gDYa4yDpaGLCZnh9jDzxLm" \
    "uny9K0X~0leR~vC-6q9M0tmlLyAtfhp3MRLu0R4oTXINYZOKbMUJtEs-YN1jhg6-a7uB6viciNcPDS-bRm49hHUqw-kf275zUmOc" \
    "fujGUAd98VKiHNzmmNojb7K~~YGnvsItdVXhhWFgtCtfp3OVhMn6aqkZCBN-kBRugInimuLLdKTRFjzpFPv5YPkE4hEP4STibN8M" \
    "4XbgD0xsoXBrwQWxAN9UxRiWPpiLmeQ3ksNjg8DLrrqtyDi6t2bweVfg6xelodJqGeRX5AleWG0T3VDc3~Se2ob2ieVv~RjJkiHX" \
    "ElZ-qj8goqOLBQAEAAcAAA=="
#define HOST_B \
    "pwsk553zmgk5tbpqqhlo7jubt7thfgfgt7r5b5oxdvu3sjtmvq6q.b32.i2p"
#define DEST_DSA \
    "QWqr~lzEbfp9b1Z9uRYcmmHRsFPiTeRvwdSj8812J4W2jABwlnLhLcx3ymINHTIAeMVkBizJ4Ll9kit-EWBJ8sfoyvrXobZlStqZ" \
    "qupRvpe~wLrnaBLgr22NRBSfcGE6HPK2O0MeOm~4gk3-pjE6GivTNZd6uBCZdIC8ugnV7BA5jwLI1ZqJngHI6w2AShtuGYdBDlXM" \
    "ouiG8eW3-J-GRVN9Lw7OyBddDP3iQge5STPIS2R4PTsHQXzecV1QC8YwInc5v0NbCk9-0dvhrY0SkzYloDNAREyu0RSKahlJ3Nop" \
    "5umjNjSj-AbFNzBdjENpBlmdY0OewpfFkt9iohw~R7INj0ADsmd7lm-SaKyD9bL7Z2cNyltzjDqKaZTK~puBGTkj6znmhGRZ38ig" \
    "Tby3auz~jmysRtly7rfBEbdYN-z~~bSYC4xx-ye3Zaaf0KheN1baviNIOUsrQv0rQ7d3~nt1W~Svc2UhgkUN5Nbhgt7KYQnXiKxJ" \
    "p1is40V4yxHWAAAA"
#define HOST_DSA \
    "bukmkoitg6w6sgdm3f6fyvk5rjxihsbwvped52fnpwvvqx76pvrq.b32.i2p"
#define DEST_P521 \
    "~2auxjxDgUr0ob1He95mAJlQHgUcS3mJnTk~NYSGnQUAO~ojhz7YRhmqVq3ESw5P2ZoLBQeH6cMWtRdErqle6UPZOrltrZ~kRmto" \
    "hQDMH~vPkjwql0L3sTZsem~Ctq-xXuQ9zZ5Mub-ujng0g-PLuH7y03N6fjSGnoBusJ9iXkuu3Vmmp1z8jRr~2xMoR3X83hLjDXtc" \
    "e4iPVi~KKESiOsMoTqaH107rlEZFbblb39CjNdjTJhBdWDsrygzKuqAf4zj8t~FX-7WbOpb4BhaFrYVUEB4SoJhiUP1YcfTA2tHT" \
    "HFbRvbrTNWW5s~N4vHS4-C6wyU6seVa-HZgGaqeEg6kO2VmLJGZqXHlHs84v-jvtZBCwV091kbtAhMrf6ctPI-mzL5TjqMyJCKts" \
    "uhlJglMR~ukDJgSujJZ345NtSvPoz9BJN82Zl7Bg6pSOO36YQzDH9KJ1ghUWhQWclmn0UTKkzb7jrZlDaACpJlRweMpzB~b7Zbtt" \
    "XtHStzwjvoMeBQAIAAMAAF5Z7dQ="
#define HOST_P521 \
    "kuz5nuwh2g2v6wvzlcnwabhbna7tl2hb34snmnnm7dmznbogqdma.b32.i2p"
#define DEST_RED \
    "Sht9uKbWbyAwh-T8-7LvYUiv6DKE6mHUueOuV4xlBcVKG324ptZvIDCH5Pz7su9hSK~oMoTqYdS5465XjGUFxUobfbim1m8gMIfk" \
    "~Puy72FIr-gyhOph1LnjrleMZQXFSht9uKbWbyAwh-T8-7LvYUiv6DKE6mHUueOuV4xlBcVKG324ptZvIDCH5Pz7su9hSK~oMoTq" \
    "YdS5465XjGUFxUobfbim1m8gMIfk~Puy72FIr-gyhOph1LnjrleMZQXFSht9uKbWbyAwh-T8-7LvYUiv6DKE6mHUueOuV4xlBcVK" \
    "G324ptZvIDCH5Pz7su9hSK~oMoTqYdS5465XjGUFxUobfbim1m8gMIfk~Puy72FIr-gyhOph1LnjrleMZQXFSht9uKbWbyAwh-T8" \
    "-7LvYUiv6DKE6mHUueOuV4xlBcVKG324ptZvIDCH5Pz7su9hSK~oMoTqYdS5465XjGUFxdiam636zoqJQ~SFM2VR64bbIvRqBr5x" \
    "R1SJwxLaYphvBQAEAAsAAA=="
#define HOST_RED \
    "ogiufbxe55afovvzuhchwcwpgwufu36nzk3bmomtfqwpkw2w6yja.b32.i2p"
#define KEYS_A \
    "dPu45WnZodKffMFs8f~pO9vdGDZYvx8UTEJ8rZ5Ezmp0-7jladmh0p98wWzx~-k7290YNli~HxRMQnytnkTOanT7uOVp2aHSn3zB" \
    "bPH~6Tvb3Rg2WL8fFExCfK2eRM5qdPu45WnZodKffMFs8f~pO9vdGDZYvx8UTEJ8rZ5Ezmp0-7jladmh0p98wWzx~-k7290YNli~" \
    "HxRMQnytnkTOanT7uOVp2aHSn3zBbPH~6Tvb3Rg2WL8fFExCfK2eRM5qdPu45WnZodKffMFs8f~pO9vdGDZYvx8UTEJ8rZ5Ezmp0" \
    "-7jladmh0p98wWzx~-k7290YNli~HxRMQnytnkTOanT7uOVp2aHSn3zBbPH~6Tvb3Rg2WL8fFExCfK2eRM5qdPu45WnZodKffMFs" \
    "8f~pO9vdGDZYvx8UTEJ8rZ5Ezmp0-7jladmh0p98wWzx~-k7290YNli~HxRMQnytnkTOamf0UrGG6NPrKIetudADKM2vYsADa0KD" \
    "v-DkcgX~iuXVBQAEAAcAAOgRF8NtqUD97z-ydHLsbv0BAXg8VFLxpTKVyTWDMQE5cd5UB6SmGduONCf2cV5RJxOxsJfyhwpnZXIZ" \
    "qSKi8U4fWdRnnYrKdo0cfCOTWRAppoS3uaIsJnp-SYyC~mPQIH5o9gob5CLpfFls7unqwi7QAD0N4JNmEW~USHr5DZEFuXTvLceE" \
    "mDKtY6Vxf-WALpmu54Yq-MRkMrLgp1n1SRV1uc0J4ZocSNWkosB~f-WiQ5arnn4OFnEfLx~Cgd9oMAIII-oKedmtDeHeI9vryJZJ" \
    "7y805R3163diEhk5-kYMloPBRCzS~haql3RWI5yuhz5KcHoD8TOBmtzNHZaSSyapCbLUc4F0x3iQn5ShRk-icw~ABxYK3sB8wytQ" \
    "czTu8w=="
#define KEYS_DSA \
    "QWqr~lzEbfp9b1Z9uRYcmmHRsFPiTeRvwdSj8812J4W2jABwlnLhLcx3ymINHTIAeMVkBizJ4Ll9kit-EWBJ8sfoyvrXobZlStqZ" \
    "qupRvpe~wLrnaBLgr22NRBSfcGE6HPK2O0MeOm~4gk3-pjE6GivTNZd6uBCZdIC8ugnV7BA5jwLI1ZqJngHI6w2AShtuGYdBDlXM" \
    "ouiG8eW3-J-GRVN9Lw7OyBddDP3iQge5STPIS2R4PTsHQXzecV1QC8YwInc5v0NbCk9-0dvhrY0SkzYloDNAREyu0RSKahlJ3Nop" \
    "5umjNjSj-AbFNzBdjENpBlmdY0OewpfFkt9iohw~R7INj0ADsmd7lm-SaKyD9bL7Z2cNyltzjDqKaZTK~puBGTkj6znmhGRZ38ig" \
    "Tby3auz~jmysRtly7rfBEbdYN-z~~bSYC4xx-ye3Zaaf0KheN1baviNIOUsrQv0rQ7d3~nt1W~Svc2UhgkUN5Nbhgt7KYQnXiKxJ" \
    "p1is40V4yxHWAAAA9ZeqCAY69wRBO4wZSAQZcJKnUNzHBt52XKcBKfA1AWKn1MeQCkd4wpMvoVW3REiXz-uHcUDrG1U6wNY~hmxc" \
    "qSljN2DZbQ6unZ1G1Db~dAA7qc3gfPLAzx70TY0jFyRmmNHIHL6iiD1pUGLpjlzmRqiv9pxBf8F1QQMBQJBWXcbnBUY55JvQhU25" \
    "q0FKXBPy0wY06lpmbTE-J51XDrEccbAqQfD2nNS8fTMkRjMm~gRhgTKHPaP5mSpfbBRubqcNddq2Jnw7WWDHqlOAZ24EBRMdEVgE" \
    "u5Jtn13Ewi3MwjZfRlJcvTxNqQ76EVOn1T8ZyS8z2LqVxdXritp~4BBsT-cMHyaHUMfOxI5oyIkHIwT2kIHe"
#define KEYS_OFFLINE \
    "dPu45WnZodKffMFs8f~pO9vdGDZYvx8UTEJ8rZ5Ezmp0-7jladmh0p98wWzx~-k7290YNli~HxRMQnytnkTOanT7uOVp2aHSn3zB" \
    "bPH~6Tvb3Rg2WL8fFExCfK2eRM5qdPu45WnZodKffMFs8f~pO9vdGDZYvx8UTEJ8rZ5Ezmp0-7jladmh0p98wWzx~-k7290YNli~" \
    "HxRMQnytnkTOanT7uOVp2aHSn3zBbPH~6Tvb3Rg2WL8fFExCfK2eRM5qdPu45WnZodKffMFs8f~pO9vdGDZYvx8UTEJ8rZ5Ezmp0" \
    "-7jladmh0p98wWzx~-k7290YNli~HxRMQnytnkTOanT7uOVp2aHSn3zBbPH~6Tvb3Rg2WL8fFExCfK2eRM5qdPu45WnZodKffMFs" \
    "8f~pO9vdGDZYvx8UTEJ8rZ5Ezmp0-7jladmh0p98wWzx~-k7290YNli~HxRMQnytnkTOamf0UrGG6NPrKIetudADKM2vYsADa0KD" \
    "v-DkcgX~iuXVBQAEAAcAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" \
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" \
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" \
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" \
    "AAAAAPSGVwAABx9t3b69ZFwuw~GjBusI0ilUla-TvIIkO86SNaJBdabPzzKXUP8TvaE4aulF0l7P~XeqvZGd1BMARa-bkkt5PSMx" \
    "byGhAlU0nuuZ4q6RO3DtOGktYp~izrltXrZYCZloCkcq0pWRuIsjSj2Je2EqzHp4FJ16WkD5tM3Yx-jlkxqd"
#define BAD_TRUNCATED_DEST \
    "dPu45WnZodKffMFs8f~pO9vdGDZYvx8UTEJ8rZ5Ezmp0-7jladmh0p98wWzx~-k7290YNli~HxRMQnytnkTOanT7uOVp2aHSn3zB" \
    "bPH~6Tvb3Rg2WL8fFExCfK2eRM5qdPu45WnZodKffMFs8f~pO9vdGDZYvx8UTEJ8rZ5Ezmp0-7jladmh0p98wWzx~-k7290YNli~" \
    "HxRMQnytnkTOanT7uOVp2aHSn3zBbPH~6Tvb3Rg2WL8fFExCfK2eRM5qdPu45WnZodKffMFs8f~pO9vdGDZYvx8UTEJ8rZ5Ezmp0" \
    "-7jladmh0p98wWzx~-k7290YNli~HxRMQnytnkTOanT7uOVp2aHSn3zBbPH~6Tvb3Rg2WL8fFExCfK2eRM5qdPu45WnZodKffMFs" \
    "8f~pO9vdGDZYvx8UTEJ8rZ5Ezmp0-7jladmh0p98wWzx~-k7290YNli~HxRMQnytnkTOamf0UrGG6NPrKIetudADKM2vYsADa0KD" \
    "v-DkcgX~iuXVBQA="
#define BAD_CERT_LEN_PAST_END \
    "dPu45WnZodKffMFs8f~pO9vdGDZYvx8UTEJ8rZ5Ezmp0-7jladmh0p98wWzx~-k7290YNli~HxRMQnytnkTOanT7uOVp2aHSn3zB" \
    "bPH~6Tvb3Rg2WL8fFExCfK2eRM5qdPu45WnZodKffMFs8f~pO9vdGDZYvx8UTEJ8rZ5Ezmp0-7jladmh0p98wWzx~-k7290YNli~" \
    "HxRMQnytnkTOanT7uOVp2aHSn3zBbPH~6Tvb3Rg2WL8fFExCfK2eRM5qdPu45WnZodKffMFs8f~pO9vdGDZYvx8UTEJ8rZ5Ezmp0" \
    "-7jladmh0p98wWzx~-k7290YNli~HxRMQnytnkTOanT7uOVp2aHSn3zBbPH~6Tvb3Rg2WL8fFExCfK2eRM5qdPu45WnZodKffMFs" \
    "8f~pO9vdGDZYvx8UTEJ8rZ5Ezmp0-7jladmh0p98wWzx~-k7290YNli~HxRMQnytnkTOamf0UrGG6NPrKIetudADKM2vYsADa0KD" \
    "v-DkcgX~iuXVBf~~AAcAAA=="
#define BAD_TRAILING_BYTE \
    "dPu45WnZodKffMFs8f~pO9vdGDZYvx8UTEJ8rZ5Ezmp0-7jladmh0p98wWzx~-k7290YNli~HxRMQnytnkTOanT7uOVp2aHSn3zB" \
    "bPH~6Tvb3Rg2WL8fFExCfK2eRM5qdPu45WnZodKffMFs8f~pO9vdGDZYvx8UTEJ8rZ5Ezmp0-7jladmh0p98wWzx~-k7290YNli~" \
    "HxRMQnytnkTOanT7uOVp2aHSn3zBbPH~6Tvb3Rg2WL8fFExCfK2eRM5qdPu45WnZodKffMFs8f~pO9vdGDZYvx8UTEJ8rZ5Ezmp0" \
    "-7jladmh0p98wWzx~-k7290YNli~HxRMQnytnkTOanT7uOVp2aHSn3zBbPH~6Tvb3Rg2WL8fFExCfK2eRM5qdPu45WnZodKffMFs" \
    "8f~pO9vdGDZYvx8UTEJ8rZ5Ezmp0-7jladmh0p98wWzx~-k7290YNli~HxRMQnytnkTOamf0UrGG6NPrKIetudADKM2vYsADa0KD" \
    "v-DkcgX~iuXVBQAEAAcAAOgRF8NtqUD97z-ydHLsbv0BAXg8VFLxpTKVyTWDMQE5cd5UB6SmGduONCf2cV5RJxOxsJfyhwpnZXIZ" \
    "qSKi8U4fWdRnnYrKdo0cfCOTWRAppoS3uaIsJnp-SYyC~mPQIH5o9gob5CLpfFls7unqwi7QAD0N4JNmEW~USHr5DZEFuXTvLceE" \
    "mDKtY6Vxf-WALpmu54Yq-MRkMrLgp1n1SRV1uc0J4ZocSNWkosB~f-WiQ5arnn4OFnEfLx~Cgd9oMAIII-oKedmtDeHeI9vryJZJ" \
    "7y805R3163diEhk5-kYMloPBRCzS~haql3RWI5yuhz5KcHoD8TOBmtzNHZaSSyapCbLUc4F0x3iQn5ShRk-icw~ABxYK3sB8wytQ" \
    "czTu8wA="
#define BAD_TRUNCATED_SIGNING_KEY \
    "dPu45WnZodKffMFs8f~pO9vdGDZYvx8UTEJ8rZ5Ezmp0-7jladmh0p98wWzx~-k7290YNli~HxRMQnytnkTOanT7uOVp2aHSn3zB" \
    "bPH~6Tvb3Rg2WL8fFExCfK2eRM5qdPu45WnZodKffMFs8f~pO9vdGDZYvx8UTEJ8rZ5Ezmp0-7jladmh0p98wWzx~-k7290YNli~" \
    "HxRMQnytnkTOanT7uOVp2aHSn3zBbPH~6Tvb3Rg2WL8fFExCfK2eRM5qdPu45WnZodKffMFs8f~pO9vdGDZYvx8UTEJ8rZ5Ezmp0" \
    "-7jladmh0p98wWzx~-k7290YNli~HxRMQnytnkTOanT7uOVp2aHSn3zBbPH~6Tvb3Rg2WL8fFExCfK2eRM5qdPu45WnZodKffMFs" \
    "8f~pO9vdGDZYvx8UTEJ8rZ5Ezmp0-7jladmh0p98wWzx~-k7290YNli~HxRMQnytnkTOamf0UrGG6NPrKIetudADKM2vYsADa0KD" \
    "v-DkcgX~iuXVBQAEAAcAAOgRF8NtqUD97z-ydHLsbv0BAXg8VFLxpTKVyTWDMQE5cd5UB6SmGduONCf2cV5RJxOxsJfyhwpnZXIZ" \
    "qSKi8U4fWdRnnYrKdo0cfCOTWRAppoS3uaIsJnp-SYyC~mPQIH5o9gob5CLpfFls7unqwi7QAD0N4JNmEW~USHr5DZEFuXTvLceE" \
    "mDKtY6Vxf-WALpmu54Yq-MRkMrLgp1n1SRV1uc0J4ZocSNWkosB~f-WiQ5arnn4OFnEfLx~Cgd9oMAIII-oKedmtDeHeI9vryJZJ" \
    "7y805R3163diEhk5-kYMloPBRCzS~haql3RWI5yuhz5KcHoD8TOBmtzNHZaSSyapCbLUc4F0x3iQn5ShRk-icw~ABxYK3sB8wytQ" \
    "czTu"
#define BAD_STANDARD_ALPHABET \
    "kGyG/K1sZKm36rRVPHXtwhezrE7UVbQh8habGfYMwD41XkJqi8tClhH2/vr7apvu4WBMbSKSdLnuh/04K3Rf150Wqto57HIdKaXy" \
    "Q4T1RxrtFgjF4daIdbpRhV87tITGLIpWawrM1it6yzbZnsvIE45JFgs1oJeR3KhbCYpMhY3Tg/Vuh2gDYa4yDpaGLCZnh9jDzxLm" \
    "uny9K0X/0leR/vC+6q9M0tmlLyAtfhp3MRLu0R4oTXINYZOKbMUJtEs+YN1jhg6+a7uB6viciNcPDS+bRm49hHUqw+kf275zUmOc" \
    "fujGUAd98VKiHNzmmNojb7K//YGnvsItdVXhhWFgtCtfp3OVhMn6aqkZCBN+kBRugInimuLLdKTRFjzpFPv5YPkE4hEP4STibN8M" \
    "4XbgD0xsoXBrwQWxAN9UxRiWPpiLmeQ3ksNjg8DLrrqtyDi6t2bweVfg6xelodJqGeRX5AleWG0T3VDc3/Se2ob2ieVv/RjJkiHX" \
    "ElZ+qj8goqOLBQAEAAcAAA=="
#define B33_RED \
    "4vfnlwe2tow7vtukrfb7jbjtmvi6xbw3el2gubv6ofdvjcodclngfgdp.b32.i2p"
#define B33_RED_KEY \
    "d89a9badface8a8943f485336551eb86db22f46a06be71475489c312da62986f"
#define B33_BOTH \
    "f5bhiz7ukkyyn2gt5muiplnz2absrtnpmlaag22cqo76bzdsax7yvzov.b32.i2p"
#define B33_SECRET \
    "fnbhiz7ukkyyn2gt5muiplnz2absrtnpmlaag22cqo76bzdsax7yvzov.b32.i2p"
#define B33_AUTH \
    "fvbhiz7ukkyyn2gt5muiplnz2absrtnpmlaag22cqo76bzdsax7yvzov.b32.i2p"
#define B33_WRONG \
    "4vfnlwe2tow7vtukrfb7jbjtmvi6xbw3el2gubv6ofdvjcodclngfgda.b32.i2p"

#endif
